# From the root of a checkout.
edgekit compress ../shared/user-project/project.py:model --train ../shared/user-project/project.py:train_data --test ../shared/user-project/project.py:test_data --image-size 32 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --name resnet20 --max-drop 0.5 --max-size-mb 0.2726 --time 20m --threads 1 --provider cpu,cuda --out edgekit-runs/resnet20-cifar10

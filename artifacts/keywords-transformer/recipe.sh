# From the root of a checkout.
edgekit compress tools/reference/keywords.py:transformer --train tools/reference/keywords.py:train_data --test tools/reference/keywords.py:test_data --labels zero,one,two,three,four,five,six,seven,eight,nine --name keywords-transformer --max-drop 1 --time 4m --optimizer adamw --learning-rate 0.001 --out edgekit-runs/keywords-transformer

# From the root of a checkout.
edgekit compress tools/reference/keywords.py:lstm --train tools/reference/keywords.py:train_data --test tools/reference/keywords.py:test_data --labels zero,one,two,three,four,five,six,seven,eight,nine --name keywords-lstm --max-drop 1 --time 2m --out edgekit-runs/keywords-lstm

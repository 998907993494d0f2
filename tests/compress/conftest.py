import textwrap

import pytest


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A user's project whose pruning leaves one decision only, so that timings cannot change the plan."""
    path = tmp_path_factory.mktemp("project") / "project.py"
    path.write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn
            from torch.utils.data import TensorDataset


            class Net(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.a = nn.Conv2d(3, 64, 3, padding=1)
                    self.b = nn.Conv2d(64, 16, 3, padding=1)
                    self.head = nn.Linear(16, 4)

                def forward(self, x):
                    x = torch.relu(self.b(torch.relu(self.a(x))))
                    return self.head(x.mean((2, 3)))


            def model():
                torch.manual_seed(0)
                return Net().eval()


            def data(n, seed):
                generator = torch.Generator().manual_seed(seed)
                x = torch.randn(n, 3, 24, 24, generator=generator)
                with torch.no_grad():
                    return TensorDataset(x, model()(x).argmax(1))


            def train_data():
                return data(256, 1)


            def test_data():
                return data(96, 2)
            """
        )
    )
    return path

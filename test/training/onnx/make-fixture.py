"""Makes cnn.onnx as PyTorch exports it: python3 make-fixture.py (torch 2.13, onnx 1.23).

A small network with what such files hold: convolutions with uneven windows, a batch norm that is not folded
away, a pool, dropout, a flattening by computed sizes, a layer norm, GELU written out.
"""
import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 10, (3, 5), stride=(2, 1), padding=(1, 2))
        self.dense, self.norm2, self.out = nn.Linear(10 * 2 * 4, 24), nn.LayerNorm(24), nn.Linear(24, 10)
        self.drop = nn.Dropout(0.25)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm1(self.conv1(x))), 2)
        x = F.relu(self.conv2(x))
        x = x.view(x.size(0), -1)
        x = self.drop(x)
        x = F.gelu(self.dense(x))
        x = self.norm2(x) * 0.5 + torch.tanh(x)
        return self.out(x)


torch.manual_seed(7)
net = Net()
with torch.no_grad():
    for _ in range(20):
        net(torch.randn(32, 1, 8, 8) * 1.5 + 0.5)  # running statistics that are not 0 and 1
net.eval()
torch.onnx.export(net, (torch.randn(3, 1, 8, 8),), "cnn.onnx", input_names=["image"], output_names=["logits"],
                  dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}}, opset_version=17, dynamo=False,
                  training=torch.onnx.TrainingMode.PRESERVE)

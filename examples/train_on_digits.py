"""The recipe's network for digits, in a loop of plain PyTorch. Takes half a minute."""

import matplotlib.pyplot as plt
import torch

torch.manual_seed(0)

# --8<-- [start:loop]
import tomllib
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy

from tsm2.vision import ViM2, ViM2Config

recipe = Path(__file__).parent / "vision" / "configs" / "digits.toml"
sizes = tomllib.loads(recipe.read_text(encoding="utf-8"))["model_options"]
model = ViM2(ViM2Config(in_chans=1, num_classes=10, **sizes))

pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
train, test, train_labels, test_labels = train_test_split(
    images, torch.tensor(labels), test_size=0.2, stratify=labels, random_state=0
)
epochs, batch = 12, 64
optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, 4e-3, epochs=epochs, steps_per_epoch=-(-len(train) // batch)
)
right = []
for _ in range(epochs):
    model.train()
    for rows in torch.randperm(len(train)).split(batch):
        loss = cross_entropy(model(train[rows]), train_labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.no_grad():
        right.append(float((model(test).argmax(1) == test_labels).float().mean()))
# --8<-- [end:loop]
print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
print(f"{right[-1]:.1%} of {len(test)} held-out digits are read right")

figure, axes = plt.subplots(figsize=(7, 3))
axes.plot(range(1, epochs + 1), [100 * share for share in right], color="#d1495b", marker="o")
axes.set_xlabel("epoch")
axes.set_ylabel("read right, % of held-out digits")
axes.set_xticks(range(1, epochs + 1))
axes.spines[["top", "right"]].set_visible(False)
figure.savefig("accuracy.png")

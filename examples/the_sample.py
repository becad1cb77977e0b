"""What the generated sample holds: who follows whom is known. Takes a second."""

# --8<-- [start:sample]
from tsm2.datasets import SAMPLE_LINKS, load_sample

frame = load_sample()
print(frame.describe().loc[["mean", "std"]].round(2))
for link in SAMPLE_LINKS:
    print(link)
# --8<-- [end:sample]

panels = frame.tail(24 * 10).plot(subplots=True, figsize=(9, 5), legend=False, color="#3b3b3b")
for panel, name in zip(panels, frame.columns, strict=True):
    panel.set_ylabel(name, rotation=0, ha="right")
panels[0].figure.savefig("columns.png")

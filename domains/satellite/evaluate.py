"""Measure what a pretrained encoder's frozen features are worth on labels, beside random weights and pixel statistics.

    python -m domains.satellite.evaluate --encoder runs/mine --data scenes/ --label class

Prints a table (k-NN and linear probe; balanced accuracy, AUROC; 95 % intervals by group) and saves it as
evaluation_<label>.json and .md in the run folder, whose report.html then shows it. --shots 5,10,50,100 adds a label-efficiency
curve, label_efficiency_<label>.json and .md. Keep the images of one place in one group (--group), or neighbours of training
images will be scored.
"""

from core.cli import main
from domains.satellite.collection import SATELLITE
from domains.verbs.evaluate import verb

if __name__ == "__main__":
    main(verb(SATELLITE, __doc__ or ""))

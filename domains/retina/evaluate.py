"""Measure what a pretrained encoder's frozen features are worth on labels, beside random weights and pixel statistics.

    python -m domains.retina.evaluate --encoder runs/mine --data labels.csv --label retinopathy_grade

Prints a table (k-NN and linear probe; balanced accuracy, AUROC, quadratic kappa for grades; 95 % intervals by group) and
saves it as evaluation_<label>.json and .md in the run folder, whose report.html then shows it. --shots 5,10,50 adds the
same scores for so many labelled images per class, label_efficiency_<label>.json and .md.
"""

from core.cli import main
from domains.retina.collection import RETINA
from domains.verbs.evaluate import verb

if __name__ == "__main__":
    main(verb(RETINA, __doc__ or ""))

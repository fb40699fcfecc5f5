"""Write one vector per image as Parquet: file, group, vector.

python -m domains.retina.embed --encoder runs/mine --data photographs/ --out vectors.parquet
"""

from core.cli import main
from domains.retina.collection import RETINA
from domains.verbs.embed import verb

if __name__ == "__main__":
    main(verb(RETINA, __doc__ or ""))

"""Put the measured table of a report into README.md, or check that it is the one that stands there.

python tools/readme_table.py artifacts/resnet20-cifar10/report.json
python tools/readme_table.py artifacts/resnet20-cifar10/report.json --check
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edgekit.report import markdown, stage_table

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="a report.json")
    parser.add_argument("--readme", type=Path, default=README, help="the file with the markers")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the table is another one")
    arguments = parser.parse_args()
    table = markdown(*stage_table(json.loads(arguments.report.read_text())))
    text = arguments.readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{arguments.readme} has no {BEGIN} … {END}", file=sys.stderr)
        return 1
    wanted = f"{before}{BEGIN}\n{table}\n{END}{after}"
    if arguments.check:
        if wanted != text:
            print(f"the table in {arguments.readme.name} is not that of {arguments.report}", file=sys.stderr)
        return int(wanted != text)
    arguments.readme.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())

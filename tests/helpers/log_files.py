"""Files of rows as other programs write them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def write(frame: pd.DataFrame, path: Path, form: str) -> None:
    """One file, `parquet`, `csv` or `jsonl`, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        table = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(table.replace_schema_metadata(None), path)  # as writers other than pandas do
    elif form == "csv":
        frame.to_csv(path, index=False)
    else:
        lines = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]
        text = "".join(json.dumps(line, default=lambda t: t.isoformat(), ensure_ascii=False) + "\n" for line in lines)
        path.write_text(text, encoding="utf-8")

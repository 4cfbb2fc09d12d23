"""Write the committed JSON schemas: `python -m whydrift.pipelines.schemas`."""

from __future__ import annotations

from pathlib import Path

from whydrift.pipelines import config, verdict_json

SCHEMAS = {"schema.json": config.json_schema, "verdict.schema.json": verdict_json.json_schema}


def main() -> None:
    """Write them into `configs/` of the working folder."""
    for name, schema in SCHEMAS.items():
        (Path("configs") / name).write_text(schema(), encoding="utf-8")


if __name__ == "__main__":
    main()

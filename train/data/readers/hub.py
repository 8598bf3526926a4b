"""A data set of the Hub -> (place, row) pairs, through the `datasets` library, which is imported only then."""

import re
from collections.abc import Iterator

from persona_bot.checkpoints.hub_errors import explain
from persona_bot.errors import UserError
from train.data.readers.json_text import PARTS

NAME = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)?")
FILE_ENDINGS = (".json", ".jsonl", ".txt", ".csv", ".tsv", ".gz", ".parquet", ".zip")


def is_hub_name(name: str) -> bool:
    """Whether a name that is no file may be `USER/DATASET` or `USER/DATASET/CONFIG`."""
    return bool(NAME.fullmatch(name)) and not name.lower().endswith(FILE_ENDINGS)


def read_hub(name: str, part: str) -> Iterator[tuple[str, object]]:
    """The rows of one split; none where the data set has no such split. Raises UserError for what cannot be fetched."""
    user, dataset, *config = name.split("/")
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "Data sets of the Hub need the package datasets; run `pip install datasets`."
        ) from error
    datasets.disable_progress_bars()
    repo = f"{user}/{dataset}"
    try:
        splits = datasets.get_dataset_split_names(repo, *config)
        split = next((split for split in PARTS.get(part, (part,)) if split in splits), None)
        if split is None:
            return
        rows = datasets.load_dataset(repo, *config, split=split)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_explain(error, name)) from error
    for number, row in enumerate(rows, 1):
        yield f"row {number} of {split}", row


def _explain(error: Exception, name: str) -> str:
    text = str(error)
    if "Config name is missing" in text or "BuilderConfig" in text:
        known = ", ".join(re.findall(r"'([\w.-]+)'", text.split("available configs:")[-1])[:8])
        cure = f"choose one of {known}, as in {name.split('/')[0]}/{name.split('/')[1]}/{known.split(', ')[0]}"
        return f"The data set {name} has several configurations; {cure}."
    if type(error).__name__ in (
        "DatasetNotFoundError",
        "EmptyDatasetError",
        "DataFilesNotFoundError",
    ):
        if "gated" in text:
            return f"The data set {name} is gated; ask for access on its page, then set HF_TOKEN."
        if type(error).__name__ == "DatasetNotFoundError":
            return (
                f"There is no data set {name} on the Hub that your token may read, and no such file; check the "
                "spelling, or run `hf auth login` if it is private."
            )
        return f"The data set {name} holds no files that can be read; choose another."
    if "trust_remote_code" in text or "scripts are no longer supported" in text:
        return f"The data set {name} needs code of its own to be read, which is not run; download its files and name one."
    return explain(error, name).replace("give a folder", "give a file")

"""The blocks of all pages work as written: README.md, docs/ and the others.

- `python` blocks run in order, in one namespace. One whose first line names a file, `# my_config.py`, is written to it
  instead; a config is loaded and its model built.
- `bash` blocks run, with runs of a few steps on tiny data. What a page names is there (`things.py`): photo.jpg, photos,
  clip.mp4, scan.nii.gz, weights as mit_b0.pth, data/demo/TASK, the data of a config in the layout that it wants, and
  work_dirs/CONFIG with the checkpoints that a whole run would have saved.
- Where a test machine cannot do that, `<!-- not run: REASON -->` stands on the line before the block.
- Other blocks have a language too: `text` for what is no code.
"""

import pytest

from tests.docs.blocks import PAGES, read_blocks
from tests.docs.commands import run_block
from tests.docs.reading import check_json, check_python, wrong_options
from tests.docs.sandbox import BlockError

LANGUAGES = {"bash", "json", "python", "text", "yaml", "{toctree}"}
NOT_RUN = {"docs/install.md": 4}  # how many blocks of a page may say so; of others, one


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_a_known_language(page: str) -> None:
    assert [str(block) for block in read_blocks(page) if block.language not in LANGUAGES] == []


@pytest.mark.parametrize("page", PAGES)
def test_few_blocks_are_not_run(page: str) -> None:
    skipped = [block for block in read_blocks(page) if block.reason is not None]
    assert len(skipped) <= NOT_RUN.get(page, 1), [f"{block}: {block.reason}" for block in skipped]


@pytest.mark.parametrize("page", PAGES)
def test_options_are_known_to_their_commands(page: str) -> None:
    blocks = [block for block in read_blocks(page) if block.language == "bash"]
    assert [wrong for block in blocks for wrong in wrong_options(block)] == []


@pytest.mark.parametrize("page", PAGES)
def test_python_and_json_are_read_and_parts_of_configs_fit(page: str) -> None:
    for block in read_blocks(page):
        if block.language == "python":
            check_python(block)
        elif block.language == "json":
            check_json(block)


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.is_config for block in read_blocks(page))])
def test_configs_load_and_their_models_are_built(page: str, open_sandbox) -> None:  # type: ignore[no-untyped-def]
    sandbox = open_sandbox(page)
    for block in read_blocks(page):
        if block.name is not None:
            sandbox.write(block)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if read_blocks(page)])
def test_the_blocks_of_a_page_run_one_after_the_other(page: str, open_sandbox) -> None:  # type: ignore[no-untyped-def]
    sandbox = open_sandbox(page)
    for block in read_blocks(page):
        if block.reason is None:
            failure = ""
            try:
                run_block(sandbox, block)
            except BlockError as error:
                failure = str(error)
            if failure:  # by itself: its traceback is that of this test
                pytest.fail(failure, pytrace=False)

"""`raystream config` has an entry for every key, taken from the options themselves."""

from raystream.config.describe import describe_options
from raystream.config.load import load_config
from raystream.config.options import JobConfig

DOCUMENTED = {doc.key: doc for doc in describe_options()}


def test_every_key_of_the_configuration_is_described():
    assert set(JobConfig().effective()) <= set(DOCUMENTED)


def test_every_description_says_something():
    for doc in DOCUMENTED.values():
        assert doc.type, doc
        assert doc.default, doc
        assert doc.meaning.endswith("."), doc


def test_descriptions_are_sorted_and_names_are_unique():
    names = [name for doc in describe_options() for name in (doc.key, *doc.aliases)]
    keywords = {name.replace(".", "_").replace("-", "_") for name in names}

    assert list(DOCUMENTED) == sorted(DOCUMENTED)
    assert len(names) == len(set(names)) == len(keywords)


def test_described_defaults_load_as_the_defaults():
    assert load_config({doc.key: doc.default for doc in DOCUMENTED.values()}) == JobConfig()


def test_one_entry_in_full():
    doc = DOCUMENTED["execution.checkpointing.num-retained"]

    assert (doc.type, doc.default, doc.aliases) == ("int", "1", ("state.checkpoints.num-retained",))
    assert doc.meaning == "Number of completed checkpoints that are kept, the newest ones."

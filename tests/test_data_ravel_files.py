"""RAVEL's files: what is written is what is read, in three layouts; what cannot be read is refused by one line."""

import contextlib
import functools
import hashlib
import http.server
import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from microtome.core.errors import DataError
from microtome.data.ravel import (
    ENTITY_TYPES,
    EntityTable,
    Planted,
    atlas_tables,
    download,
    load_ravel,
    read_folder,
    read_hub,
    synthetic_table,
    types_in,
    write_folder,
)
from microtome.data.ravel.files import file_names


def table(name: str = "city", seed: int = 0) -> EntityTable:
    return synthetic_table(
        [Planted("Color", 3), Planted("Shape", 2)], entities=12, templates=4, wikipedia=6, name=name, seed=seed
    )


def edit(folder, kind: str, change) -> None:
    """Change one of city's files: its parsed content is handed to `change`, which may return another."""
    path = folder / file_names("city")[kind]
    content = json.loads(path.read_text())
    replaced = change(content)
    path.write_text(json.dumps(content if replaced is None else replaced))


# JSON


@pytest.mark.parametrize("made", [*map(table, ENTITY_TYPES), table("other"), *atlas_tables().values()],
                         ids=lambda t: t.entity_type)  # fmt: skip
def test_a_table_written_as_files_is_read_back(tmp_path, made):
    write_folder(made, tmp_path)
    assert types_in(tmp_path) == (made.entity_type,)
    assert read_folder(tmp_path, made.entity_type) == made
    assert load_ravel(tmp_path, made.entity_type, view="verbatim").table == made


def test_wikipedia_prompts_may_be_absent_and_other_files_may_not(tmp_path):
    write_folder(table(), tmp_path)
    (tmp_path / "wikipedia_city_entity_prompts.json").unlink()
    assert read_folder(tmp_path, "city").wikipedia == ()
    (tmp_path / "ravel_city_entity_to_split.json").unlink()
    with pytest.raises(DataError, match=r"No file 'ravel_city_entity_to_split.json' in '.*'; put RAVEL's files there"):
        read_folder(tmp_path, "city")


def test_an_unknown_type_or_folder_is_refused_with_what_there_is(tmp_path):
    write_folder(table("other"), tmp_path)
    with pytest.raises(DataError, match=r"No entity type 'citty'; there are city, .*, occupation, other: .* 'city'\?"):
        load_ravel(tmp_path, "citty")
    with pytest.raises(DataError, match=r"No folder 'nowhere' to read RAVEL files from"):
        load_ravel("nowhere", "city")
    with pytest.raises(DataError, match=r"No view 'clean'; .* Did you mean 'cleaned'\?"):
        load_ravel(tmp_path, "other", view="clean")


def first(content: dict) -> str:
    return next(iter(content))


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("templates", lambda c: c["Color"].append("no slot"), "gives no split for 'no slot'"),
        ("templates", lambda c: c.update(Color=["no slot"]), "gives no split for 'no slot'"),
        ("templates", lambda c: c.update(Color="text"), "has a str at 'Color'; it needs a list"),
        ("templates", lambda c: c.update(Color=[3]), "has a int at 'Color'; it needs a text"),
        ("templates", lambda c: [], "holds a list; it needs one object"),
        ("templates", lambda c: {}, "The table of 'city' has no templates"),
        ("entities", lambda c: c[first(c)].pop("Shape") and None, "Entity '.*' of 'city' has no Shape; other entities"),
        ("entities", lambda c: c[first(c)].update(Shape=None), "has a NoneType at '.*: Shape'; it needs a text"),
        ("entities", lambda c: c.update({"": c[first(c)]}), "gives no split for ''"),
        ("entities", lambda c: {}, "The table of 'city' has no entities"),
        ("entity_splits", lambda c: c.update({first(c): "dev"}), "The split of '.*' is 'dev'; use one of train"),
        ("entity_splits", lambda c: c.pop(first(c)) and None, "entity_to_split.json' gives no split for"),
        ("wikipedia", lambda c: c.update({"Of %s": {"entity": None}}), "gives no split and entity at 'Of %s'"),
        ("wikipedia", lambda c: c.update({"Of": {"split": "val", "entity": None}}), "has 0 places for an entity"),
    ],
)
def test_malformed_files_are_refused_by_one_line(tmp_path, kind, change, said):
    write_folder(table(), tmp_path)
    edit(tmp_path, kind, change)
    with pytest.raises(DataError, match=said) as raised:
        read_folder(tmp_path, "city")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("text", "n"), [("no place", 0), ("%s and %s", 2)])
def test_a_template_needs_exactly_one_place_for_its_entity(tmp_path, text, n):
    write_folder(table(), tmp_path)
    edit(tmp_path, "templates", lambda c: c["Color"].append(text))
    edit(tmp_path, "template_splits", lambda c: c.update({text: "train"}))
    with pytest.raises(DataError, match=f"Template '{text}' of 'city' has {n} places for an entity; it needs exactly"):
        read_folder(tmp_path, "city")


def test_a_file_that_is_not_json_is_refused(tmp_path):
    write_folder(table(), tmp_path)
    for content in (b"{", b"\xff\xfe"):
        (tmp_path / "ravel_city_entity_attributes.json").write_bytes(content)
        with pytest.raises(DataError, match=r"ravel_city_entity_attributes.json' is not JSON") as raised:
            read_folder(tmp_path, "city")
        assert "\n" not in str(raised.value)


def test_an_empty_value_is_kept_verbatim_refused_when_strict_and_dropped_when_cleaned(tmp_path):
    write_folder(table(), tmp_path)
    edit(tmp_path, "entities", lambda c: c[first(c)].update(Shape=" "))
    verbatim, defects = load_ravel(tmp_path, "city", view="verbatim")
    (found,) = defects.of("empty value")
    assert (found.where, found.found) == (verbatim.entities[0].name, "Shape")
    assert load_ravel(tmp_path, "city").table.entities == verbatim.entities[1:]
    with pytest.raises(DataError, match=f"Entity '{found.where}' of 'city' has an empty Shape; give it a value"):
        load_ravel(tmp_path, "city", strict=True)


def test_files_cannot_say_one_text_twice(tmp_path):
    made = table()
    twice = EntityTable("city", made.entities, (*made.templates, made.templates[0]))
    with pytest.raises(DataError, match=r"The template '.*' stands in the table twice"):
        write_folder(twice, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# Parquet


def write_hub(folder, made: EntityTable, *, split_column: bool = False, entity: str = "City") -> None:
    """Write a table in the Hub copy's layout, with columns a reader must leave alone."""
    texts = [(t.text, t.attribute, None, t.split) for t in made.templates]
    texts += [(w.text, "Other", w.entity, w.split) for w in made.wikipedia]
    prompts = [{"ID": i, "Template": t, "Attribute": a, "Entity": e, "at": s} for i, (t, a, e, s) in enumerate(texts)]
    entities = [{"ID": i, entity: e.name, **e.values, "URL": "https://host/x", "at": e.split}
                for i, e in enumerate(made.entities)]  # fmt: skip
    for kind, rows in (("entity", entities), ("prompt", prompts)):
        home = folder / f"{made.entity_type}_{kind}"
        home.mkdir(parents=True)
        for split, name in (("train", "train"), ("val", "validation"), ("test", "test")):
            part = [{k: v for k, v in r.items() if k != "at"} | ({"Split": split} if split_column else {})
                    for r in rows if r["at"] == split]  # fmt: skip
            file = "all" if split_column else name
            pq.write_table(pa.Table.from_pylist(part), home / f"{file}-{split[:2]}-00000-of-00001.parquet")


@pytest.mark.parametrize("split_column", [False, True])
@pytest.mark.parametrize("entity", ["City", "entity", "Name"])
def test_the_hub_layout_gives_the_same_table(tmp_path, split_column, entity):
    made = table()
    write_hub(tmp_path, made, split_column=split_column, entity=entity)
    found = load_ravel(tmp_path, "city", view="verbatim").table
    assert found.attributes == made.attributes
    for split in ("train", "val", "test"):
        assert found.entities_in(split) == made.entities_in(split)
        assert found.templates_in(split) == made.templates_in(split)
        assert found.wikipedia_in(split) == made.wikipedia_in(split)


def test_numbers_in_parquet_are_read_as_texts(tmp_path):
    made = table()
    write_hub(tmp_path, made)
    for path in (tmp_path / "city_entity").iterdir():
        rows = pq.ParquetFile(path).read().to_pylist()
        pq.write_table(pa.Table.from_pylist([r | {"Latitude": 57.0, "Longitude": -12} for r in rows]), path)
    found = read_hub(tmp_path, "city")
    assert set(found.column("Latitude")) == {"57"} and set(found.column("Longitude")) == {"-12"}


def test_parquet_that_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"No rows in '.*city_entity': 0 parquet files"):
        read_hub(tmp_path, "city")
    write_hub(tmp_path, table())
    (tmp_path / "city_prompt" / "extra.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"extra.parquet' cannot be read as parquet"):
        read_hub(tmp_path, "city")
    pq.write_table(pa.table({"Template": ["no place"], "Attribute": ["Color"]}), tmp_path / "city_prompt/extra.parquet")
    with pytest.raises(DataError, match=r"need one where every row holds '%s' once, and one called Attribute"):
        read_hub(tmp_path, "city")
    pq.write_table(pa.table({"Template": ["The %s"], "Attribute": ["Color"]}), tmp_path / "city_prompt/extra.parquet")
    with pytest.raises(DataError, match=r"A row of 'extra.parquet' has no split"):
        read_hub(tmp_path, "city")


# Download


@contextlib.contextmanager
def serving(folder):
    """Serve a folder on a local port; yield its address and the paths asked for."""
    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sums(folder) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_files_are_fetched_checked_and_not_fetched_again(tmp_path):
    remote, local, told = tmp_path / "remote", tmp_path / "local", []
    write_folder(table(), remote)
    with serving(remote) as (url, asked):
        paths = download(url, local, ["city"], checksums=sums(remote), progress=lambda *now: told.append(now))
        assert len(asked) == len(paths) == 5
        damaged = local / "ravel_city_entity_to_split.json"
        damaged.write_text("{}")
        download(url, local, ["city"], checksums=sums(remote))
        assert asked[5:] == [f"/{damaged.name}"]
    assert sums(local) == sums(remote) and read_folder(local, "city") == table()
    last = {name: (done, total) for name, done, total in told}
    assert last == {p.name: (p.stat().st_size,) * 2 for p in remote.iterdir()}


def test_a_file_with_another_checksum_never_takes_its_name(tmp_path):
    remote, local = tmp_path / "remote", tmp_path / "local"
    write_folder(table(), remote)
    wrong = sums(remote) | {"ravel_city_entity_attributes.json": "0" * 64}
    with serving(remote) as (url, _):
        with pytest.raises(DataError, match=r"has SHA-256 \w{12}\.\.\. where 000000000000\.\.\. is expected"):
            download(url, local, ["city"], checksums=wrong)
        assert list(local.iterdir()) == []
        (remote / "ravel_city_entity_attributes.json").unlink()
        with pytest.raises(DataError, match=r"could not be fetched \(.*\); check the address"):
            download(url, local, ["city"], checksums=wrong)
    with pytest.raises(DataError, match=r"could not be fetched"):
        download(url, local, ["city"], checksums=wrong, timeout=2)
    assert list(local.iterdir()) == []


def test_what_cannot_be_checked_is_not_fetched(tmp_path):
    with pytest.raises(DataError, match=r"No checksum of ravel_verb_entity_attributes.json, .*: give checksums"):
        download("http://127.0.0.1:9/", tmp_path, ["verb"])
    with pytest.raises(DataError, match=r"No entity type 'towns'"):
        download("http://127.0.0.1:9/", tmp_path, ["towns"])

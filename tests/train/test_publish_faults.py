"""What publishing refuses before a request is sent, and what it does when the Hub fails in every way a Hub can.

Run: python -m pytest tests/train/test_publish_faults.py
"""
# ruff: noqa: F811 (fixtures of test_publish.py)

import threading

import pytest
from huggingface_hub import constants

from tests.train.test_publish import TOKEN, UPLOADED, adapter, commits, hub, refusal, trained  # noqa: F401
from train.hub.access import check_access
from train.publish import publish

# -- before training


def test_no_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert f"No token for {hub.url} is set" in refusal(check_access, "user/mine")
    assert hub.requests == []


def test_a_wrong_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    sentence = refusal(check_access, "user/mine")
    assert "does not accept the token (401)" in sentence and "hf_wrong" not in sentence


def fine_grained(entity: str, *permissions: str) -> dict:
    scoped = [
        {
            "entity": {"type": "user", "name": entity},
            "permissions": ["repo.content.read", *permissions],
        }
    ]
    return {"role": "fineGrained", "fineGrained": {"scoped": scoped}}


@pytest.mark.parametrize(
    ("account", "name", "cause"),
    [
        ({"role": "read"}, "user/mine", "may only read user"),
        ({"role": "write"}, "other/mine", "user may not publish as other; publish to user/mine"),
        ({"role": "write", "orgs": {"club": "read"}}, "club/mine", "user may not publish as club"),
        ({"role": "fineGrained"}, "user/mine", "may only read user"),
        (fine_grained("user"), "user/mine", "may only read user"),
        (fine_grained("user/else", "repo.write"), "user/mine", "may only read user"),
    ],
)
def test_a_token_without_write_access(hub, account, name, cause):
    hub.users[TOKEN] = {"name": "user", **account}
    assert cause in refusal(check_access, name)


@pytest.mark.parametrize("entity", ["user", "user/mine"])
def test_a_fine_grained_token_with_write_access(hub, entity):
    hub.users[TOKEN] = {"name": "user", **fine_grained(entity, "repo.write")}
    check_access("user/mine")


def test_an_existing_repository_is_asked_for(hub):
    hub.put("user/mine", {})
    check_access("user/mine")
    hub.fault("GET .*/auth-check/write", status=403)
    assert "does not let this token write to user/mine (403)" in refusal(check_access, "user/mine")


def test_the_check_changes_nothing(hub):
    check_access("user/mine")
    assert hub.repos == {} and {request.method for request in hub.requests} == {"GET"}


@pytest.mark.parametrize("name", ["mine", "", "a/b/c", "user/", "user/na me", "../x", "user/x@v1"])
def test_a_name_that_is_none(hub, name):
    told = refusal(check_access, name)
    assert "is no name on the Hub" in told and ("--revision" in told) == ("@" in name)


def test_offline(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal(check_access, "user/mine")


# -- folders that are refused before a request is sent


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.pt",
        "pytorch_model.bin",
        "rng_state.pth",
        "optimizer.safetensors",
        "trainer_state.json",
    ],
)
def test_training_state_and_pickles_are_refused(hub, trained, name):
    (trained / name).write_bytes(b"x")
    assert name in refusal(publish, trained, "user/mine")
    assert hub.requests == []


def test_a_folder_without_weights(hub, trained):
    (trained / "model.safetensors").unlink()
    assert "is no checkpoint" in refusal(publish, trained, "user/mine")
    (trained / "pytorch_model.bin").write_bytes(b"x")
    assert f"`python -m train.convert {trained}` makes" in refusal(publish, trained, "user/mine")
    assert hub.requests == []


def test_no_folder(hub, tmp_path):
    assert "is no folder" in refusal(publish, tmp_path / "none", "user/mine")


def test_damaged_weights(hub, trained):
    data = bytearray((trained / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (trained / "model.safetensors").write_bytes(data)
    assert "model.safetensors is damaged or was swapped" in refusal(publish, trained, "user/mine")


def test_an_adapter_whose_base_is_only_here(hub, trained, chat_model, tmp_path):
    folder = adapter(chat_model, trained, tmp_path / "adapter", base=str(trained))
    assert "names a base that exists on this machine only" in refusal(publish, folder, "user/mine")


def test_only_listed_files_are_uploaded(hub, trained):
    for name in (
        "notes.txt",
        ".env",
        "model_args.json",
        "events.out",
        "checkpoint-10/model.safetensors",
        "checkpoint-10/optimizer.pt",
    ):
        (trained / name).parent.mkdir(exist_ok=True)
        (trained / name).write_bytes(b"x")
    publish(trained, "user/mine")
    assert set(hub.head("user/mine").files) == UPLOADED | {".gitattributes"}


# -- faults: (what the Hub does to the commit, whether it passes, what is said otherwise)

FAULTS = {
    "401": ({"status": 401}, "does not accept the token (401)"),
    "402": ({"status": 402}, "refused the upload to user/mine (402)"),
    "403": ({"status": 403}, "does not let this token write to user/mine (403)"),
    "404": ({"status": 404}, "refused the upload to user/mine (404)"),
    "413": ({"status": 413}, "refused the upload to user/mine (413)"),
    "409": ({"status": 409}, None),
    "412": ({"status": 412}, None),
    "429": ({"status": 429, "headers": {"Retry-After": "1"}}, None),
    "500": ({"status": 500}, None),
    "503": ({"status": 503, "body": b"<html>maintenance</html>"}, None),
    "hang": ({"hang": True}, None),
    "hang, but carried out": ({"hang": True, "cut": "after"}, None),
    "cut before": ({"cut": "before"}, None),
    "cut after": ({"cut": "after"}, None),
    "half an answer": ({"cut": "body"}, None),
    "no JSON": ({"status": 200, "body": b"<html>airport</html>"}, None),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_the_commit(hub, trained, fault):
    fields, cause = FAULTS[fault]
    hub.fault("POST .*/commit/", **fields)
    if cause:
        assert cause in refusal(publish, trained, "user/mine")
        assert commits(hub) == ["initial commit"]
    publish(trained, "user/mine")
    assert commits(hub) == ["initial commit", "Publish mine"]  # one, whatever happened
    assert set(hub.head("user/mine").files) == UPLOADED | {".gitattributes"}


@pytest.mark.parametrize("fault", ["429", "500", "hang", "cut before", "no JSON"])
def test_a_fault_that_stays(hub, trained, fault):
    hub.fault("POST .*/commit/", times=99, **FAULTS[fault][0])
    assert "run the same command again" in refusal(publish, trained, "user/mine")
    assert commits(hub) == ["initial commit"]


STEPS = [
    "GET /api/whoami",
    "POST /api/repos/create",
    "GET .*/auth-check",
    "POST /api/validate-yaml",
    "GET /api/models/user/mine$",
]
# the client itself waits a second
RETRIED_INSIDE = ["POST .*/preupload/", "POST .*/objects/batch", "PUT /lfs/"]


@pytest.mark.parametrize("step", [*STEPS, *RETRIED_INSIDE])
def test_a_passing_fault_at_each_step(hub, trained, step):
    fault = hub.fault(step, status=503)
    publish(trained, "user/mine")
    assert fault.times == 0 and commits(hub) == ["initial commit", "Publish mine"]


@pytest.mark.parametrize("step", [*STEPS[:3], *RETRIED_INSIDE])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_at_each_step_is_final(hub, trained, step, status):
    fault = hub.fault(step, times=99, status=status)
    assert f"({status})" in refusal(publish, trained, "user/mine")
    assert fault.times == 98 and all(len(repo.commits) == 1 for repo in hub.repos.values())


def test_a_commit_that_the_hub_carries_out_late(hub, trained):
    done = threading.Event()
    hub.fault("POST .*/commit/", also=lambda: done.wait(10))
    # gives the first request up, and makes the commit with the second
    publish(trained, "user/mine")
    done.set()
    hub.wait_until_idle()
    assert commits(hub) == ["initial commit", "Publish mine"]


def test_damage_on_the_way_up(hub, trained):
    hub.fault("PUT /lfs/", times=99, status=400, body=b'{"error": "the content has another hash"}')
    assert "refused the upload to user/mine (400)" in refusal(publish, trained, "user/mine")


def test_somebody_else_commits_in_between(hub, trained):
    publish(trained, "user/mine")
    (trained / "scores.json").write_text('{"new": 1}')
    others = {name: blob.data for name, blob in hub.head("user/mine").files.items()} | {
        "notes.txt": b"theirs"
    }
    hub.fault("POST .*/commit/", also=lambda: hub.put("user/mine", others))
    publish(trained, "user/mine")
    assert commits(hub) == ["initial commit", "Publish mine", "put", "Publish mine"]
    files = hub.head("user/mine").files
    assert files["notes.txt"].data == b"theirs" and files["scores.json"].data == b'{"new": 1}'

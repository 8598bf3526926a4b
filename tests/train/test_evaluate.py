"""Likelihoods and hits@1 against plain loops without a cache, and the evaluation command on tiny checkpoints.

Run: `python -m pytest tests/train/test_evaluate.py`
"""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from persona_bot.checkpoints.files import save_layout
from persona_bot.checkpoints.load import Checkpoint
from persona_bot.engine.likelihood import LikelihoodScorer, score_one_by_one
from persona_bot.engine.serial import SerialBackend
from persona_bot.errors import UserError
from persona_bot.layouts import find_layout
from persona_bot.persona import Persona, load_presets
from persona_bot.prompt import NOBODY, build_prompt, reply_ids, unconditional_prompt
from persona_bot.replies.local import LocalModel
from persona_bot.settings import Settings
from tests.models import batched_model
from train.data.dialogues import Dialogue, Utterance
from train.evaluate import evaluate, evaluate_folder, main
from train.metrics import character_eval, generation_eval
from train.metrics.evaluate_options import parse
from train.metrics.groups import GROUPS, NEED_NO_FILE, EvalConfig
from train.metrics.likelihood import gold_nats, log_likelihoods, rows_of
from train.metrics.ranking_eval import candidate_hits, likelihoods_behind
from train.metrics.text import baselines, mean, other_personas

METRICS = Path(character_eval.__file__).parent
TURNS = [
    "hello , how are you ?",
    "fine ! i keep bees .",
    "do they sting ?",
    "they do , but i like them .",
    "any pets ?",
    "a parrot .",
]
OTHERS = ("i work at a bank .", "no !", "what do you do for a living ?")
SHORT = Settings(min_tokens=2, max_tokens=4)


def dialogue_of(*personality: str, turns: list[str] = TURNS) -> Dialogue:
    utterances = [Utterance(tuple(turns[:k]), (*OTHERS, turns[k])) for k in range(1, len(turns), 2)]
    return Dialogue(personality, tuple(utterances))


BEEKEEPER = dialogue_of("i keep bees .", "my parrot sings .")
BANKER = dialogue_of(
    "i work at a bank .", turns=["hi !", "hello you .", "where do you work ?", "at a bank ."]
)


def checkpoint_of(model, tokenizer, **other) -> Checkpoint:
    values = {"max_positions": 256, "name": "tiny", "device": torch.device("cpu"), **other}
    return Checkpoint(model, tokenizer, find_layout(tokenizer), **values)


@pytest.fixture(scope="module")
def chat(chat_model, chat_tokenizer) -> Checkpoint:
    return checkpoint_of(chat_model, chat_tokenizer, max_positions=512)


@pytest.fixture(scope="module")
def double(convai_model, convai_tokenizer) -> Checkpoint:
    return checkpoint_of(convai_model, convai_tokenizer, ranking_head=True)


@pytest.fixture(scope="module")
def old_gpt(convai_tokenizer) -> Checkpoint:
    torch.manual_seed(1)
    config = OpenAIGPTConfig(
        vocab_size=len(convai_tokenizer), n_positions=256, n_embd=32, n_layer=2, n_head=2
    )
    return checkpoint_of(OpenAIGPTLMHeadModel(config).eval(), convai_tokenizer)


@pytest.fixture(params=["chat", "double", "old_gpt"])
def any_checkpoint(request) -> Checkpoint:
    return request.getfixturevalue(request.param)


@torch.inference_mode()
def plain_log_likelihood(checkpoint: Checkpoint, persona: Persona, turns, text: str) -> float:
    """One id after the other, the whole sequence each time, as the chat would meet them."""
    prompt = build_prompt(checkpoint.layout, persona, turns, checkpoint.max_positions - 60)
    ids, types, total = list(prompt.ids), prompt.token_types and list(prompt.token_types), 0.0
    for target in [*checkpoint.layout.encode(text), checkpoint.layout.end_id]:
        inputs = {"input_ids": torch.tensor([ids])} | (
            {"token_type_ids": torch.tensor([types])} if types else {}
        )
        total += checkpoint.model(**inputs).logits[0, -1].log_softmax(-1)[target].item()
        ids.append(target)
        types = types and types + [checkpoint.layout.speaker1]
    return total


def tidy_for(checkpoint: Checkpoint, text: str) -> str:
    return checkpoint.layout.tidy(text) if checkpoint.layout.name == "chat" else text


def test_gold_nats_equal_a_plain_loop(any_checkpoint):
    dialogues = [BEEKEEPER, BANKER]
    expected = [
        -plain_log_likelihood(
            any_checkpoint,
            Persona("", d.personality),
            u.history,
            tidy_for(any_checkpoint, u.candidates[-1]),
        )
        for d in dialogues
        for u in d.utterances
    ]
    assert gold_nats(
        any_checkpoint, dialogues, [d.personality for d in dialogues]
    ) == pytest.approx(expected, rel=1e-4)


def test_a_dialogue_is_one_pass_where_the_layout_keeps_everything_and_one_a_reply_elsewhere(
    chat, double
):
    assert [len(row.spans) for row in rows_of(chat, BEEKEEPER, BEEKEEPER.personality)] == [3]
    assert [len(row.spans) for row in rows_of(double, BEEKEEPER, BEEKEEPER.personality)] == [
        1,
        1,
        1,
    ]


def test_the_scored_ids_are_the_replies_with_their_ends(chat):
    (row,) = rows_of(chat, BEEKEEPER, BEEKEEPER.personality)
    scored = [chat.tokenizer.decode(row.ids[start:end]) for start, end in row.spans]
    assert scored == [
        "fine! i keep bees.<|im_end|>",
        "they do, but i like them.<|im_end|>",
        "a parrot.<|im_end|>",
    ]


def test_a_dialogue_too_long_for_the_model_drops_its_oldest_turns(chat):
    narrow = dataclasses.replace(chat, max_positions=175)
    rows = rows_of(narrow, BEEKEEPER, BEEKEEPER.personality)
    assert sum(len(row.spans) for row in rows) == 3 and len(rows) > 1
    assert all(len(row.ids) <= 175 for row in rows)
    assert len(gold_nats(narrow, [BEEKEEPER], [BEEKEEPER.personality])) == 3


def test_a_persona_too_long_for_the_model_is_a_user_error(chat):
    with pytest.raises(UserError, match="room for"):
        gold_nats(chat, [BEEKEEPER], [["i keep bees . " * 100]])


def test_an_utterance_that_does_not_continue_the_last_gets_a_row_of_its_own(chat):
    jumbled = Dialogue(
        BEEKEEPER.personality, (BEEKEEPER.utterances[1], BANKER.utterances[0], BANKER.utterances[1])
    )
    rows = rows_of(chat, jumbled, jumbled.personality)
    assert [len(row.spans) for row in rows] == [1, 2]


@pytest.fixture
def judged(any_checkpoint):
    """The checkpoint, and each utterance of a dialogue as (prompt, candidates' ids)."""
    persona, layout = Persona("", BEEKEEPER.personality), any_checkpoint.layout
    return any_checkpoint, [
        (
            build_prompt(layout, persona, u.history, 200),
            [reply_ids(layout, text) for text in u.candidates],
        )
        for u in BEEKEEPER.utterances
    ]


def test_candidates_through_the_engine_score_as_each_alone(chat_model, chat_tokenizer):
    model = batched_model(chat_model, chat_tokenizer)
    for utterance in BEEKEEPER.utterances:
        prompt = build_prompt(
            model.layout, Persona("", BEEKEEPER.personality), utterance.history, 200
        )
        replies = [reply_ids(model.layout, text) for text in utterance.candidates] + [
            [model.layout.end_id]
        ]
        expected = score_one_by_one(chat_model, prompt, replies).log_likelihoods
        assert model.backend.score(prompt, replies) == pytest.approx(expected, abs=1e-3)


def test_candidates_in_one_pass_score_as_each_alone(judged):
    checkpoint, questions = judged
    scorer = LikelihoodScorer(checkpoint.model, checkpoint.ranking_head)
    for prompt, replies in [*questions, questions[0]]:  # the last: back to a shorter context
        values, head = scorer.score(prompt, replies)
        alone = score_one_by_one(checkpoint.model, prompt, replies, checkpoint.ranking_head)
        assert values == pytest.approx(alone.log_likelihoods, rel=1e-4)
        assert head == (pytest.approx(alone.head, abs=1e-4) if checkpoint.ranking_head else None)
        assert len(set(values)) == len(values)


def test_candidate_likelihoods_equal_a_plain_loop(any_checkpoint):
    utterance = BEEKEEPER.utterances[1]
    persona, layout = Persona("", BEEKEEPER.personality), any_checkpoint.layout
    prompt = build_prompt(layout, persona, utterance.history, 200)
    values, _ = LikelihoodScorer(any_checkpoint.model).score(
        prompt, [reply_ids(layout, text) for text in utterance.candidates]
    )
    texts = [tidy_for(any_checkpoint, text) for text in utterance.candidates]
    assert values == pytest.approx(
        [plain_log_likelihood(any_checkpoint, persona, utterance.history, text) for text in texts],
        rel=1e-4,
    )


@torch.inference_mode()
def test_the_ranking_head_scores_as_the_double_heads_model_itself(double):
    utterance = BEEKEEPER.utterances[1]
    prompt = build_prompt(double.layout, Persona("", BEEKEEPER.personality), utterance.history, 200)
    replies = [reply_ids(double.layout, text) for text in utterance.candidates]
    length = max(len(prompt.ids) + len(reply) for reply in replies)
    rows = [
        [*prompt.ids, *reply, *[0] * (length - len(prompt.ids) - len(reply))] for reply in replies
    ]
    types = [[*prompt.token_types, *[double.layout.speaker1] * (length - len(prompt.ids))]] * len(
        replies
    )
    last = [[len(prompt.ids) + len(reply) - 1 for reply in replies]]
    output = double.model(
        input_ids=torch.tensor([rows]),
        token_type_ids=torch.tensor([types]),
        mc_token_ids=torch.tensor(last),
    )
    assert LikelihoodScorer(double.model, True).score(prompt, replies).head == pytest.approx(
        output.mc_logits[0].tolist(), abs=1e-4
    )


def test_nothing_is_an_empty_persona_and_a_silent_partner(any_checkpoint):
    layout = any_checkpoint.layout
    texts = [f"{k} {text}" for k in range(7) for text in OTHERS]  # more than fit in one pass
    values = likelihoods_behind(
        SerialBackend(any_checkpoint.model),
        unconditional_prompt(layout, any_checkpoint.max_positions),
        {text: reply_ids(layout, text) for text in texts},
    )
    expected = [
        plain_log_likelihood(any_checkpoint, NOBODY, [""], tidy_for(any_checkpoint, text))
        for text in texts
    ]
    assert [values[text] for text in texts] == pytest.approx(expected, rel=1e-4)


def test_hits_rank_the_gold_reply_by_each_measure(any_checkpoint):
    dialogues = [dialogue_of("i sing .", turns=TURNS[:2]), BANKER]
    hits = candidate_hits(any_checkpoint, SerialBackend(any_checkpoint.model), dialogues)
    over, over_anything, per_token = [], [], []
    for dialogue, other in zip(dialogues, reversed(dialogues), strict=True):
        middle = other.utterances[len(other.utterances) // 2].history
        for history, texts in dialogue.utterances:
            shown = [tidy_for(any_checkpoint, text) for text in texts]
            given = [
                plain_log_likelihood(
                    any_checkpoint, Persona("", dialogue.personality), history, text
                )
                for text in shown
            ]
            bare = [plain_log_likelihood(any_checkpoint, NOBODY, [""], text) for text in shown]
            elsewhere = [
                plain_log_likelihood(any_checkpoint, Persona("", other.personality), middle, text)
                for text in shown
            ]
            gains = [a - b for a, b in zip(given, bare, strict=True)]
            more = [a - (b + c) / 2 for a, b, c in zip(given, bare, elsewhere, strict=True)]
            over_anything.append(more.index(max(more)) == len(texts) - 1)
            rates = [
                a / (len(any_checkpoint.layout.encode(text)) + 1)
                for a, text in zip(given, shown, strict=True)
            ]
            over.append(gains.index(max(gains)) == len(texts) - 1)
            per_token.append(rates.index(max(rates)) == len(texts) - 1)
    assert hits["over_anything"] == mean(over_anything)
    assert hits["over_nothing"] == mean(over) and hits["per_token"] == mean(per_token)
    assert ("ranking_head" in hits) is any_checkpoint.ranking_head


def test_a_taught_model_hits_every_time(chat_model, chat_tokenizer):
    """Learning the gold replies by heart is seen in the scores: their sign and the gold's place are right."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(chat_model.config)
    checkpoint = checkpoint_of(model, chat_tokenizer, max_positions=512)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = [row for d in (BEEKEEPER, BANKER) for row in rows_of(checkpoint, d, d.personality)]
    for _ in range(30):
        for row in rows:
            scored = [t for start, end in row.spans for t in range(start, end)]
            logits = model(torch.tensor([row.ids])).logits[0, [t - 1 for t in scored]]
            torch.nn.functional.cross_entropy(
                logits, torch.tensor([row.ids[t] for t in scored])
            ).backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    assert candidate_hits(checkpoint, SerialBackend(model), [BEEKEEPER, BANKER])["per_token"] == 1.0
    assert mean(gold_nats(checkpoint, [BEEKEEPER], [BEEKEEPER.personality])) < 10  # from about 90


def test_models_with_attention_that_is_not_plain_are_scored_one_by_one(chat, old_gpt):
    windowed = LlamaConfig(
        vocab_size=10,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    windowed.sliding_window = 4
    assert LikelihoodScorer(chat.model).cache is not None
    assert LikelihoodScorer(old_gpt.model).cache is None
    assert LikelihoodScorer(LlamaForCausalLM(windowed)).cache is None


def test_another_persona_is_the_next_different_one():
    one, two = ("i keep bees .",), ("i sing .",)
    assert other_personas([dialogue_of(*p) for p in (one, one, two)]) == [two, two, one]
    assert other_personas([dialogue_of(*one)]) == [one]


def test_the_swap_gain_is_the_difference_of_two_plain_means(chat):
    dialogues = [BEEKEEPER, BANKER]
    report = evaluate(chat, dialogues, EvalConfig(groups=["nats", "swap"]))
    own = gold_nats(chat, dialogues, [BEEKEEPER.personality, BANKER.personality])
    swapped = gold_nats(chat, dialogues, [BANKER.personality, BEEKEEPER.personality])
    assert own != swapped
    assert report["scores"]["persona_swap_gain"] == pytest.approx(mean(swapped) - mean(own))


def test_as_written_keeps_the_blanks_of_the_file(chat):
    turns = ["how are you ?", "fine !"]
    report = evaluate(
        chat, [dialogue_of("i sing .", turns=turns)], EvalConfig(groups=["nats"], as_written=True)
    )
    parts = chat.layout.segments(
        Persona("", ("i sing .",)), ["how are you?"], add_generation_prompt=True
    )
    head, tail = [
        [chat.layout.encode(text), chat.layout.encode(raw)]
        for text, raw in (("how are you?", turns[0]), ("fine!", turns[1]))
    ]
    ids = [i for part in parts for i in (head[1] if part.ids == head[0] else part.ids)]
    end = [*tail[1], chat.layout.end_id]
    row = rows_of(chat, BANKER, BANKER.personality)[0]._replace(
        ids=ids + end, spans=[(len(ids), len(ids) + len(end))]
    )
    assert report["scores"]["nats_per_reply_as_written"] == pytest.approx(
        -log_likelihoods(chat, row)[0], rel=1e-5
    )
    assert report["scores"]["nats_per_reply_as_written"] != report["scores"]["nats_per_reply"]
    assert chat.layout.tidy("fine !") == "fine!", "the chat's own layout must be as before"


def test_a_reply_is_what_the_app_says_with_that_seed(chat):
    model = LocalModel.plain(chat)
    replies = generation_eval.reply_to_file(model, [BEEKEEPER, BANKER], 2, SHORT, seed=5)
    assert len(replies) == 2
    places = [(0, u) for u in BEEKEEPER.utterances] + [(1, u) for u in BANKER.utterances]
    for reply in replies:
        k = next(
            k
            for k, (number, u) in enumerate(places)
            if (number, u.history) == (reply.dialogue, reply.history)
        )
        persona = Persona("", (BEEKEEPER, BANKER)[reply.dialogue].personality)
        settings = dataclasses.replace(SHORT, seed=5 + k)
        assert reply.text == "".join(model.reply(persona, reply.history, settings))
        assert reply.gold == places[k][1].candidates[-1]
    assert generation_eval.reply_to_file(model, [BEEKEEPER, BANKER], 2, SHORT, seed=5) == replies


def test_in_a_self_chat_each_speaker_hears_the_other(chat, monkeypatch):
    heard = []
    monkeypatch.setattr(
        generation_eval,
        "say",
        lambda model, persona, turns, *_: (
            heard.append((persona, list(turns))) or f"reply {len(heard)}"
        ),
    )
    chat_turns = generation_eval.self_chat(
        LocalModel.plain(chat), BEEKEEPER, BANKER, 2, SHORT, seed=0
    )
    assert chat_turns == [TURNS[0], "reply 1", "reply 2", "reply 3", "reply 4"]
    first, second = Persona("", BEEKEEPER.personality), Persona("", BANKER.personality)
    assert heard == [
        (first, [TURNS[0]]),
        (second, ["", TURNS[0], "reply 1"]),
        (first, [TURNS[0], "reply 1", "reply 2"]),
        (second, ["", TURNS[0], "reply 1", "reply 2", "reply 3"]),
    ]
    assert generation_eval.self_chats(LocalModel.plain(chat), [BEEKEEPER], 1, 2, SHORT, 0)[0] == [
        "reply 5",
        "reply 7",
    ]


def test_baselines_of_a_file():
    result = baselines([BEEKEEPER, BANKER])
    assert result["human"]["unique_replies"] == 1.0
    assert result["human"]["question_share"] == 0.0
    assert result["human"]["words_per_reply"] == mean([6, 8, 3, 3, 4])
    assert result["human"]["repetition"] == 0.0
    assert 0 < result["constant"]["word_f1"] < 100


def few(name: str):
    """The first entries of a file of questions, so that a tiny model is done with them at once."""
    entries = json.loads((METRICS / name).read_text(encoding="utf-8"))
    if isinstance(entries, list):
        return entries[:3]
    return {key: values[:2] for key, values in entries.items()}


@pytest.fixture
def few_questions(monkeypatch):
    monkeypatch.setattr(character_eval, "read_json", few)
    monkeypatch.setattr(character_eval, "RANDOM_PERSONAS", 1)
    monkeypatch.setattr(character_eval, "GREETED_PRESETS", 2)
    monkeypatch.setattr(character_eval, "GREETINGS_OF_EACH", 2)


def test_every_score_of_a_checkpoint_with_a_ranking_head_is_a_number(double, few_questions):
    config = EvalConfig(
        replies=2, self_chats=1, probe_times=1, settings=SHORT, as_written=True, baselines=True
    )
    report = evaluate(double, [BEEKEEPER, BANKER], config, "own.json")
    assert all(math.isfinite(value) for value in report["scores"].values())
    names = {
        "nats_per_reply",
        "persona_swap_gain",
        "hits_over_nothing",
        "hits_ranking_head",
        "word_f1",
        "repetition",
        "recall_probes",
        "recall_probes_told",
        "contradiction_questions",
        "contradiction_yes_or_no",
        "everyday_messages",
        "asks_back",
        "greeting_with_persona",
        "voice",
    }
    assert names | {"language_model_loss", "f1_score"} <= set(report["scores"])
    assert (report["data"], report["dialogues"], report["replies"], report["generated"]) == (
        "own.json",
        2,
        5,
        2,
    )
    assert report["scores"]["nats_per_reply_as_written"] == report["scores"]["nats_per_reply"]
    assert json.loads(json.dumps(report)) == report


@pytest.fixture
def file(tmp_path):
    entries = [
        {
            "personality": d.personality,
            "utterances": [
                {"history": u.history, "candidates": u.candidates} for u in d.utterances
            ],
        }
        for d in (BEEKEEPER, BANKER)
    ]
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"valid": entries}))
    return path


def test_the_command_writes_json_and_prints_a_table(chat, chat_folder, file, tmp_path, capsys):
    folder = shutil.copytree(chat_folder, tmp_path / "model")
    save_layout(folder, chat.layout)
    out = tmp_path / "scores.json"
    options = [
        "--model",
        str(folder),
        "--data",
        str(file),
        "--limit",
        "1",
        "--only",
        "nats,hits",
        "--baselines",
        "--json",
        str(out),
    ]
    main([*options, "--device", "cpu"])
    report = json.loads(out.read_text())
    assert (report["model"], report["data"], report["dialogues"], report["replies"]) == (
        "model",
        "own.json",
        1,
        3,
    )
    assert set(report["seconds"]) == {"nats", "hits"}
    table = capsys.readouterr().out
    assert f"{report['scores']['nats_per_reply']:.2f}" in table and "42.00" in table


def test_the_command_writes_transcripts_and_replies_to_read(chat_folder, file, tmp_path):
    replies, transcripts = tmp_path / "replies.txt", tmp_path / "transcripts.md"
    options = [
        "--model",
        str(chat_folder),
        "--set",
        "max_tokens=4",
        "--set",
        "min_tokens=2",
        "--presets",
        "2",
        "--replies",
        "3",
    ]
    main(
        [
            *options,
            "--data",
            str(file),
            "--only",
            "replies",
            "--replies-out",
            str(replies),
            "--transcripts",
            str(transcripts),
        ]
    )
    assert replies.read_text().count("\n  > ") == 3
    text = transcripts.read_text()
    assert (
        text.count("### ") == 2
        and text.count("**You:** Do you have a car?") == 2
        and "i work at greenpeace." in text
    )
    visits = tmp_path / "visits.md"
    main([*options, "--transcripts", str(visits), "--visits"])
    text = visits.read_text()
    assert text.count("**You:** ") == text.count("**Persona:** ") == 2 * 5 * 8
    assert text.count("**You:** tell me more  \n") == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--data FILE"),
        (["--only", "nats"], "--data FILE"),
        (["--transcripts", "t.md", "--only", "nats"], "--data FILE"),
        (["--data", "none.json"], "none.json cannot be read"),
        (["--data", "FILE", "--only", "nats,bleu"], "not 'bleu'"),
        (["--data", "FILE", "--limit", "0"], "--limit must be at least 1"),
        (["--data", "FILE", "--set", "heat=2"], "not 'heat'"),
        (["--data", "FILE", "--set", "temperature=hot"], "needs a number"),
        (["--data", "FILE", "--set", "top_p=7"], "top_p"),
        (["--data", "FILE", "--json", "no/such/folder.json"], "does not exist"),
        (["--data", "FILE", "--model", "FILE"], "not a checkpoint folder"),
        (["--data", "FILE:0"], "own.json:0 takes no dialogue; write at least "),
        (["--data", "FILE:²"], "own.json:² cannot be read"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_and_exit_2(arguments, message, file, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([argument.replace("FILE", str(file)) for argument in arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert message in error and error.count("\n") == 1


def test_convai_alone_needs_a_ranking_head(chat):
    with pytest.raises(UserError, match="^tiny has no ranking head, so ConvAIModel's scores"):
        evaluate(chat, [BEEKEEPER], EvalConfig(groups=["convai"]))


def test_hits_need_candidates(chat):
    alone = Dialogue(("i sing .",), (Utterance(("hi",), ("hello",)),))
    with pytest.raises(UserError, match="single candidate"):
        evaluate(chat, [alone], EvalConfig(groups=["hits"]))


def test_a_folder_is_scored_without_hits_when_nothing_can_be_ranked(chat, chat_folder, monkeypatch):
    alone = Dialogue(("i sing .",), (Utterance(("hi",), ("hello",)),))
    monkeypatch.setattr(generation_eval, "read_probes", lambda: [])
    monkeypatch.setattr(generation_eval, "self_chats", lambda *_: [["hi", "hi"]])
    report = evaluate_folder(chat_folder, [alone])
    assert report["generated"] == 1 and report["scores"]["repetition"] == 0.5
    assert not any("hits" in name for name in report["scores"])


def test_probes_are_asked_again_after_the_persona_has_told_everything(monkeypatch):
    heard = []

    def say(model, persona, turns, settings, seed):
        heard.append((persona.sentences, tuple(turns), seed))
        return "in a cabin"

    probe = generation_eval.Probe(("i live in a cabin.", "i sing."), "where?", ("cabin",), ())
    monkeypatch.setattr(generation_eval, "say", say)
    monkeypatch.setattr(generation_eval, "together", lambda _, f, items, bar: [f(i) for i in items])
    answers = generation_eval.ask_probes(None, [probe], 2, SHORT, 7, told=True)
    turns = ("hi", "i live in a cabin.", "tell me about you", "i sing.", "where?")
    assert heard == [(probe.persona, turns, 7), (probe.persona, turns, 8)]
    assert [a.right for a in answers] == [True, True]


def test_probes_need_no_file():
    assert parse(["--only", "probes"], GROUPS, NEED_NO_FILE).config.groups == ["probes"]
    assert parse(["--transcripts", "t.md"], GROUPS, NEED_NO_FILE).config.groups == []


def test_two_models_stand_in_one_table_and_side_by_side(
    chat_folder, few_questions, tmp_path, capsys
):
    other = shutil.copytree(chat_folder, tmp_path / "other")
    out, chats = tmp_path / "scores.json", tmp_path / "chats.md"
    short = ["--set", "max_tokens=4", "--set", "min_tokens=2", "--presets", "1"]
    files = ["--json", str(out), "--side-by-side", str(chats), "--persona", "vampire"]
    only = ["--only", "contradictions,greetings", "--against", str(other)]
    main(["--model", str(chat_folder), *only, *short, *files])
    table = capsys.readouterr().out
    report = json.loads(out.read_text())
    # the same weights: every score is equal, every difference nought
    assert report["against"]["scores"] == report["scores"]
    assert "+0.000" in table and "contradiction questions" in table
    text = chats.read_text()
    assert text.count("## ") == 2 and f"## {load_presets()['vampire'].name}" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| why?")]
    assert len(rows) == 2 and all(len(row) == 3 for row in rows)


@pytest.mark.parametrize("flag", ["--json", "--replies-out", "--transcripts", "--side-by-side"])
def test_a_file_that_cannot_be_written_is_named_before_any_work(flag, file, tmp_path, capsys):
    place = tmp_path / "a folder"
    place.mkdir()
    with pytest.raises(SystemExit) as exit_:
        # no model of that name exists, so whoever loads first fails otherwise
        against = ["--against", "nobody/nothing"]
        main(["--model", "nobody/nothing", "--data", str(file), *against, flag, str(place)])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error == f"{place} cannot be written (Is a directory); write somewhere else.\n"


def test_what_is_there_already_stays_when_the_work_fails(file, tmp_path):
    kept = tmp_path / "scores.json"
    kept.write_text("precious")
    with pytest.raises(SystemExit):
        main(["--model", str(file), "--data", str(file), "--json", str(kept)])
    assert kept.read_text() == "precious"


def test_two_models_of_one_name_are_two(chat_folder, tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    other = shutil.copytree(chat_folder, tmp_path / "old" / chat_folder.name)
    shown = []
    monkeypatch.setattr(
        "train.evaluate.side_by_side", lambda models, *_: shown.append(dict(models)) or ""
    )
    out = tmp_path / "chats.md"
    main(["--model", str(chat_folder), "--against", str(other), "--side-by-side", str(out)])
    name = chat_folder.name
    assert list(shown[0]) == [f"{name} (before)", name]
    assert shown[0][name] is not shown[0][f"{name} (before)"]

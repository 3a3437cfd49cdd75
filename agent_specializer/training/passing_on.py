"""Tools that take any text, and requests for them, all made up: what a result says is mostly mailed, told or noted down.

The training sets have a few dozen such calls; what passes on is the same for most agents.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from agent_specializer.examples import Example
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training.data import Composition
from agent_specializer.training.handed_on import statement

SEED, COUNT = 11, 60
"""Of the tools."""
SHARE = 0.35
"""Of compositions, those that have one of them more."""
REQUESTS = 4
"""For a tool that is put into a composition."""
DESCRIBED = 0.6
"""Share of parameters that are described."""
QUOTED = 0.25
"""Share of texts in quotes."""
PEOPLE = re.findall(
    r"\w+",
    "Adele Bruno Carla Dmitri Edith Farid Greta Hugo Irma Jonas Kemal Lucia Marta Nils Olga Pablo Rosa Stefan Tara Umberto Vera Willem "
    "Yusuf Zora",
)
HOSTS = re.findall(
    r"\w+", "acme bluefield corner depot eastside fabrik gardens hilltop lakeside mailbox nordic oakwood"
)
ENDINGS = ("com", "org", "net", "io", "example")


@dataclass(frozen=True)
class Kind:
    """How one may pass something on.

    Attributes:
        names: of the tool. text, to: names that its parameters may have; `to` is empty where there is no second one.
        does: what it may be said to do. asks: how it may be asked for, with {text}, and {to} where there is one.
        whom: whom or what {to} may be; empty: people or their addresses.
    """

    names: tuple[str, ...]
    text: tuple[str, ...]
    does: tuple[str, ...]
    asks: tuple[str, ...]
    to: tuple[str, ...] = ()
    whom: tuple[str, ...] = ()
    by_address: bool = False


KINDS = (
    Kind(
        names=(
            "send_email",
            "sendEmail",
            "mail_out",
            "compose_email",
            "email_customer",
            "mail.send",
            "write_mail",
        ),
        text=("body", "message", "content", "text", "email_body"),
        to=("to", "recipient", "address", "email", "email_address"),
        does=(
            "Sends an email.",
            "Write an e-mail to an address",
            "Email someone",
            "Deliver mail to a recipient.",
        ),
        asks=(
            "email {text} to {to}",
            "mail {text} to {to}",
            "mail {to} {text}",
            "send {to} an e-mail with {text}",
            "send an email to {to} with {text}",
            "send an email to {to} saying {text}",
            "send {to} a mail about {text}",
            "write to {to} about {text}",
            "e-mail {to} {text}",
            "forward {text} to {to}",
            "please send {text} to {to} by mail",
            "can you mail {to} {text}?",
        ),
        by_address=True,
    ),
    Kind(
        names=(
            "send_message",
            "text_contact",
            "notify_person",
            "sendSms",
            "message_user",
            "dm",
            "inform",
            "chat_send",
        ),
        text=("text", "message", "note", "content", "message_text"),
        to=("name", "contact", "person", "recipient", "user", "receiver"),
        does=(
            "Sends a short message to a person.",
            "Text a contact",
            "Notify somebody.",
            "Send a chat message to one user",
        ),
        asks=(
            "text {to} {text}",
            "tell {to} {text}",
            "let {to} know {text}",
            "message {to} {text}",
            "send {text} to {to}",
            "send {to} a message with {text}",
            "send {to} a text about {text}",
            "inform {to} about {text}",
            "write {to} {text}",
            "please let {to} know {text}",
            "could you tell {to} {text}?",
            "pass {text} on to {to}",
        ),
    ),
    Kind(
        names=("post_update", "post_to_channel", "publish_post", "share_in_channel", "channel.post"),
        text=("message", "text", "content", "post"),
        to=("channel", "group", "board", "topic"),
        does=("Posts to a channel.", "Publish something for a group", "Share a message in a channel."),
        asks=(
            "post {text} in {to}",
            "post {text} to the {to} channel",
            "share {text} in {to}",
            "tell the {to} channel {text}",
            "put {text} on the {to} board",
            "publish {text} in the {to} group",
        ),
        whom=(
            "general",
            "support",
            "sales",
            "release-notes",
            "neighbours",
            "choir",
            "logistics",
            "alerts",
            "football",
        ),
    ),
    Kind(
        names=(
            "add_note",
            "save_note",
            "write_memo",
            "log_entry",
            "createNote",
            "remember_this",
            "journal.add",
        ),
        text=("note", "text", "content", "body", "memo_text"),
        does=("Saves a note.", "Write something down", "Adds an entry to the log.", "Keep a memo for later"),
        asks=(
            "save {text} as a note",
            "write {text} down",
            "note {text}",
            "make a note of {text}",
            "put {text} in my notes",
            "log {text}",
            "keep {text} for later",
            "please note down {text}",
        ),
    ),
    Kind(
        names=("announce", "speak", "read_aloud", "broadcast_message", "sayInRoom"),
        text=("text", "message", "statement", "announcement_text"),
        to=("room", "place", "speaker", "zone"),
        does=("Reads a text out in a room.", "Announce something over a speaker", "Say something aloud."),
        asks=(
            "announce {text} in the {to}",
            "read {text} out in the {to}",
            "say {text} in the {to}",
            "tell everyone in the {to} {text}",
            "broadcast {text} to the {to}",
        ),
        whom=(
            "kitchen",
            "lobby",
            "workshop",
            "garage",
            "nursery",
            "canteen",
            "upstairs",
            "hall",
            "waiting room",
        ),
    ),
    Kind(
        names=("translate_text", "translate", "to_language", "text.translate"),
        text=("text", "content", "source_text"),
        to=("language", "target_language", "to_language", "target"),
        does=("Translates a text.", "Put a text into another language", "Translate into a language."),
        asks=(
            "translate {text} into {to}",
            "translate {text} to {to}",
            "put {text} into {to}",
            "how do you say {text} in {to}?",
            "I need {text} in {to}",
        ),
        whom=("French", "Polish", "Spanish", "Dutch", "Japanese", "Turkish", "Swedish", "Arabic"),
    ),
)


@dataclass(frozen=True)
class PassingOn:
    """A tool, and which of its parameters is which; `to` is empty where there is but one."""

    tool: ToolSpec
    kind: Kind
    text: str
    to: str

    def request(self, said: str, rng: random.Random) -> Example:
        """A request that what is `said` be passed on."""
        whom = ""
        if self.to:
            whom = rng.choice(self.kind.whom) if self.kind.whom else _somebody(rng, self.kind.by_address)
        quoted = f'"{said}"' if rng.random() < QUOTED else said
        asks = rng.choice(self.kind.asks).format(text=quoted, to=whom)
        asks = asks[0].upper() + asks[1:] if rng.random() < 0.6 else asks
        mark = "" if asks[-1] in ".?!" else rng.choice((".", ""))
        arguments = {self.to: whom, self.text: said} if self.to else {self.text: said}
        return Example(
            toolset_id="passing_on",
            messages=(Message(role="user", content=asks + mark),),
            calls=(Call(name=self.tool.name, arguments=arguments),),
        )


def with_passing_on(composition: Composition, rng: random.Random) -> Composition:
    """`composition` with one such tool more, and requests for it."""
    one = rng.choice(TOOLS)
    tools = composition.toolset.tools
    if composition.opaque or one.tool.name in composition.toolset.names:
        return composition
    place = rng.randint(0, len(tools))
    toolset = Toolset(
        tools=(*tools[:place], one.tool, *tools[place:]), instructions=composition.toolset.instructions
    )
    return replace(
        composition,
        toolset=toolset,
        examples=(*composition.examples, *(one.request(statement(rng), rng) for _ in range(REQUESTS))),
    )


def _somebody(rng: random.Random, by_address: bool) -> str:
    name = rng.choice(PEOPLE)
    if not by_address or rng.random() < 0.2:
        return name
    host = f"{rng.choice(HOSTS)}.{rng.choice(ENDINGS)}"
    return rng.choice((f"{name.lower()}@{host}", f"{name.lower()}{rng.randint(1, 99)}@{host}"))


def _tool(kind: Kind, rng: random.Random) -> PassingOn:
    text = rng.choice(kind.text)
    to = rng.choice([name for name in kind.to if name != text]) if kind.to else ""
    properties = {}
    for name, says in ((to, "Who gets it."), (text, "What is said.")):
        if name:
            words = re.sub(r"_", " ", name).capitalize()
            described = {"description": rng.choice((says, f"{words}."))} if rng.random() < DESCRIBED else {}
            properties[name] = {"type": "string", **described}
    names = list(properties)
    rng.shuffle(names)
    return PassingOn(
        tool=ToolSpec(
            name=rng.choice(kind.names),
            description=rng.choice(kind.does),
            parameters={
                "type": "object",
                "properties": {name: properties[name] for name in names},
                "required": sorted(names),
                "additionalProperties": False,
            },
        ),
        kind=kind,
        text=text,
        to=to,
    )


def _tools() -> tuple[PassingOn, ...]:
    rng = random.Random(SEED)
    return tuple(_tool(rng.choice(KINDS), rng) for _ in range(COUNT))


TOOLS = _tools()

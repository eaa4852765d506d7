"""What the MCP tools take and return; the words in the fields are for models, and become the published schemas."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from supervisor.agent.values import Grant, Reason, State

Type = Annotated[
    Literal["file:read", "file:write", "exec:run", "secret:use", "net:connect", "agent.call:spawn"],
    Field(description="file:write includes reading, and is staged until the owner applies it"),
]


class Why(BaseModel):
    """One reason."""

    code: str = Field(description="stable word for programs")
    text: str


class GrantModel(BaseModel):
    """Something you may use now."""

    grant_id: str
    type: str = Field(description="for example file:read")
    target: str = Field(description="what was granted; it may be less than you asked for")
    paths: list[str] = Field(description="where it is in your file system; use these paths")
    is_copy: bool = Field(description="the files are a copy that vanishes when the grant ends")
    expires_unix_s: int
    uses_left: int = Field(description="0: without a count")


class Outcome(BaseModel):
    """Where a request is."""

    status: Literal["granted", "denied", "waiting", "cancelled"]
    request_id: str
    reasons: list[Why] = Field(description="why it was denied, or why a person is asked")
    next_steps: list[str] = Field(description="what you can do now, most useful first")
    waiting_for: list[str] = Field(description="who has to answer, when status is waiting")
    grant: GrantModel | None = None


class Access(BaseModel):
    """What you have."""

    session: str
    workspace: str
    network: str = Field(description="off, profile or open")
    purpose: str
    grants: list[GrantModel]
    open_requests: list[Outcome]
    may_ask_for: list[str] = Field(description="type and target; other things are denied, or take more people")
    somebody_answers: bool = Field(description="whether a person is there to answer a request")


class Explained(BaseModel):
    """Why a request is where it is."""

    request_id: str
    type: str
    target: str
    status: str
    reasons: list[Why]
    next_steps: list[str]
    rules: list[str]


class Started(BaseModel):
    """Another agent that runs now."""

    session: str
    grants: list[GrantModel]


class Done(BaseModel):
    """It is done."""

    released: str


def outcome_of(state: State) -> Outcome:
    """Return a state as a model reads it, with what it can do next."""
    status: Any = {"granted": "granted", "withdrawn": "cancelled", "denied": "denied", "lapsed": "denied"}
    reasons = reasons_of(state.reasons)
    if state.phase == "lapsed" and not reasons:
        reasons = [Why(code="lapsed", text="nobody answered in time")]
    steps = list(state.next_steps)
    if state.grant and state.grant.type == "secret:use":
        steps.insert(0, f"in a shell: deskwarden-agent use {state.grant.id} | COMMAND (its value never comes here)")
    if not state.is_final:
        steps.insert(0, f"do other work, then wait_for_request {state.id}")
    return Outcome(
        status=status.get(state.phase, "waiting"),
        request_id=state.id,
        reasons=reasons,
        next_steps=steps,
        waiting_for=list(state.waiting_for),
        grant=grant_of(state.grant) if state.grant else None,
    )


def reasons_of(reasons: tuple[Reason, ...]) -> list[Why]:
    """Return reasons as a model reads them."""
    return [Why(code=one.code, text=one.text) for one in reasons]


def grant_of(grant: Grant) -> GrantModel:
    """Return a grant as a model reads it."""
    return GrantModel(
        grant_id=grant.id,
        type=grant.type,
        target=grant.target,
        paths=list(grant.paths),
        is_copy=grant.is_copy,
        expires_unix_s=grant.expires_ns // 10**9,
        uses_left=grant.uses_left,
    )

"""The server's routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from featherweight import __version__
from featherweight.errors import DataError, FeatherweightError
from featherweight.records.questions import Question
from featherweight.registry import ANSWERS
from featherweight.serving import openai, page, strict_json
from featherweight.serving.asking import answered, take
from featherweight.serving.batching import Batcher
from featherweight.serving.catalogue import Catalogue, is_name
from featherweight.serving.guards import (
    App,
    LimitBody,
    Observe,
    Refuse,
    RequireHost,
    RequireKey,
    RequireLocalHost,
    Shed,
)
from featherweight.serving.metrics import Metrics
from featherweight.serving.settings import Settings
from featherweight.tasks import Task
from featherweight.tasks.reading.questions import require_fits

_PREDICT = "/v1/predict"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _replies() -> Any:
    """The schema of a reply of each kind of answer."""
    truncated = {"type": "boolean", "description": "true, and only there, where the model saw the beginning alone"}
    schemas = (ANSWERS[name].reply_schema for name in ANSWERS)
    return [{**one, "properties": {**one["properties"], "truncated": truncated}} for one in schemas]


class PredictRequest(_Strict):
    texts: list[Any] = Field(
        min_length=1,
        description="what to answer: texts, or what else the model takes, such as the words of a text, or a pair, "
        '`{"text": ..., "text_pair": ...}`',
        examples=[["A text to classify."]],
    )
    model: str | None = Field(None, description="a name of `/v1/models`; may be left out where there is one run")


class Predictions(BaseModel):
    predictions: list[dict[str, Any]] = Field(json_schema_extra={"items": {"anyOf": _replies()}})


class Model(BaseModel):
    name: str
    task: str
    labels: list[str] = Field(description="what its answers may be, where that is a list of names")
    max_length: int = Field(description="tokens after which a text is cut")
    texts: list[str] = Field(description="the columns of the texts that it was tuned on: two for pairs")
    base: str | None = Field(description="the name of its untuned model, where that is served beside it")
    writes: Literal["", "text", "messages"] = Field(
        description="where it answers with text, what it is asked by OpenAI's routes: prompts, or messages"
    )


class OpenAiModel(BaseModel):
    """A model as OpenAI's clients know it."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "featherweight"


class Models(BaseModel):
    models: list[Model]
    object: str = "list"
    data: list[OpenAiModel] = Field(description="the same names for OpenAI's clients")


class Status(BaseModel):
    status: str


class Error(BaseModel):
    detail: str


class AdapterRequest(_Strict):
    name: str = Field(description="a folder in the directory given to --allow-dynamic-adapters")


class _StrictRequest(Request):
    async def json(self) -> Any:
        return strict_json.parse(await self.body())


class _StrictRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def strictly(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


def build(catalogue: Catalogue, settings: Settings) -> tuple[App, Batcher]:
    """The application within its guards, and the batcher that answers behind it."""
    metrics = Metrics()
    batcher = Batcher(
        catalogue, metrics, token_budget=settings.token_budget, max_waiting_tokens=settings.max_waiting_tokens
    )
    metrics.watch("waiting_tokens", "Estimated tokens admitted and unanswered", lambda: batcher.waiting_tokens)
    metrics.watch("models", "Names that answer", lambda: len(catalogue.all()))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        batcher.start()
        yield
        batcher.close()

    app = FastAPI(
        title="Featherweight",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would come from a CDN
        redoc_url=None,
        redirect_slashes=False,
        responses={code: {"model": Error} for code in ((400, 401) if settings.key else (400,))},
    )
    app.router.route_class = _StrictRoute
    _add_errors(app)
    _add_state(app, batcher, metrics)
    _add_models(app, catalogue, batcher, settings)
    openai.add_routes(app, catalogue, batcher, settings)
    if settings.dynamic is not None:
        _add_dynamic(app, catalogue, settings)
    routes = frozenset(getattr(route, "path", "") for route in app.routes)
    guarded: App = LimitBody(app, settings.max_body_bytes, settings.timeout)
    guarded = Shed(guarded, frozenset({_PREDICT, *openai.PATHS}), batcher)
    guarded = RequireLocalHost(guarded, settings.is_local and settings.key is None)
    guarded = Refuse(RequireHost(RequireKey(guarded, settings.key)))
    return Observe(guarded, metrics, routes), batcher


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Where and what, but not the input, which may be large or no JSON at all.
        lines = [f"{'.'.join(str(part)[:80] for part in one['loc'])}: {_reason(one)}" for one in error.errors()[:10]]
        said = "; ".join(lines).encode("utf-8", "replace").decode()
        return JSONResponse(_refused(request, said, 422), status_code=422)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(_refused(request, error.detail, error.status_code), error.status_code, error.headers)


def _refused(request: Request, said: str, status: int) -> dict[str, Any]:
    """The body of a refusal; OpenAI's clients look for another key."""
    also = {"error": openai.error(said, status)} if request.url.path in openai.PATHS else {}
    return {"detail": said, **also}


def _reason(problem: dict[str, Any]) -> str:
    said = problem.get("ctx", {}).get("error", "")
    return str(said) if problem["type"] in {"json_invalid", "value_error"} else str(problem["msg"])


def _add_state(app: FastAPI, batcher: Batcher, metrics: Metrics) -> None:
    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        headers = {"content-security-policy": page.policy()}
        return Response(page.html(), media_type="text/html; charset=utf-8", headers=headers)

    @app.get("/health")
    async def health() -> Status:
        """Whether the process answers."""
        return Status(status="ok")

    @app.get("/ready", responses={503: {"model": Status}})
    async def ready() -> Any:
        """Whether it takes work: not while it shuts down."""
        return JSONResponse({"status": "draining"}, status_code=503) if batcher.draining else Status(status="ready")

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def measured() -> Response:
        """Counters for Prometheus."""
        return Response(metrics.text(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})


def _add_models(app: FastAPI, catalogue: Catalogue, batcher: Batcher, settings: Settings) -> None:
    @app.get("/v1/models")
    async def models() -> Models:
        """Who answers."""
        served = catalogue.all()
        bases = {one.base_of: one.name for one in served if one.base_of is not None}
        return Models(
            models=[
                Model(
                    name=one.name,
                    task=one.task.name,
                    labels=list(one.task.answer.possible),
                    max_length=one.backend.cutting(one.key).max_length,
                    texts=list(one.backend.text_columns(one.key)),
                    base=bases.get(one.name),
                    writes=openai.asked_with(one.task),
                )
                for one in served
            ],
            data=[OpenAiModel(id=one.name) for one in served],
        )

    refusals: dict[int | str, Any] = {code: {"model": Error} for code in (404, 408, 413, 422, 429, 503)}

    @app.post(_PREDICT, response_model=Predictions, responses=refusals)
    async def predict(asked: PredictRequest, request: Request) -> Any:
        """The model's answer to each text, in order."""
        if len(asked.texts) > settings.max_texts:
            raise HTTPException(
                422, f"texts: {len(asked.texts)} are more than {settings.max_texts}; send them in parts"
            )
        served = take(catalogue, asked.model)
        request.state.model, request.state.texts = served.name, len(asked.texts)
        try:
            questions = asked_of(
                served.task, asked.texts, settings.max_text_characters, served.backend.text_columns(served.key)
            )
            predictions = await answered(request, batcher, served, questions, settings.timeout)
        finally:
            catalogue.give_back(served)
        return Response(json.dumps({"predictions": predictions}, ensure_ascii=False), media_type="application/json")


def asked_of(task: Task, given: list[Any], most: int, columns: Sequence[str] = ()) -> list[Question]:
    """What a request asks. A text is looked at where it stands, so that a client finds it.

    Args:
        most: characters of a text, or of a pair.
        columns: of the texts that the model was tuned on.
    """
    found: list[Question] = []
    for place, one in enumerate(given):
        try:
            found += [require_fits(asked, columns) for asked in task.questions([one])]
        except DataError as error:
            raise HTTPException(422, f"body.texts.{place}: {error}") from None
        if found[-1].characters > most:
            raise HTTPException(422, f"texts: one has more than {most:,} characters")
    return found


def _add_dynamic(app: FastAPI, catalogue: Catalogue, settings: Settings) -> None:
    folder = settings.dynamic.resolve()  # type: ignore[union-attr]
    loader = ThreadPoolExecutor(1)
    loading: set[str] = set()
    refusals: dict[int | str, Any] = {code: {"model": Error} for code in (404, 409, 422)}

    @app.post("/v1/adapters", status_code=201, response_model=Status, responses=refusals)
    async def load(asked: AdapterRequest) -> Status:
        """Load an adapter out of the directory that the server was started with."""
        name = asked.name
        if not is_name(name):
            raise HTTPException(400, "name: A-Z a-z 0-9 . _ -, at most 64, not beginning with a dot")
        path = folder / name
        if not path.is_dir() or path.resolve().parent != folder:
            raise HTTPException(404, "name: there is no such folder")
        if name in loading or catalogue.find(name) is not None:
            raise HTTPException(409, f"{name}: is loaded already; unload it first")
        loading.add(name)
        try:
            await asyncio.get_running_loop().run_in_executor(loader, catalogue.load, name, str(path))
        except FeatherweightError as error:
            raise HTTPException(422, str(error).replace(f"{folder}/", "")) from None
        finally:
            loading.discard(name)
        return Status(status="loaded")

    @app.delete("/v1/adapters/{name}", response_model=Status, responses=refusals)
    async def unload(name: str) -> Status:
        """Stop answering for an adapter; requests that wait for it are still answered."""
        served = catalogue.find(name)
        if served is None or served.base_of is not None:
            raise HTTPException(404, "there is no adapter of that name")
        catalogue.unload(name)
        return Status(status="unloaded")

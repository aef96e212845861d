"""A pack that answers over HTTP as packs do: JSON, files, uploads, streams, pages; and one that looks at prompts."""

import asyncio
import os

from aiohttp import web
from server import PromptServer

server = PromptServer.instance


@server.routes.get("/answers/list")
async def listed(request):
    return web.json_response({"names": ["a", "b"], "query": dict(request.rel_url.query), "pid": os.getpid()})


@server.routes.post("/answers/save/{name}")
async def save(request):
    body = await request.json()
    return web.json_response({"name": request.match_info["name"], "body": body}, status=201)


@server.routes.post("/answers/upload")
async def upload(request):
    form = await request.post()
    return web.json_response({"name": form["file"].filename, "bytes": len(form["file"].file.read())})


@server.routes.get("/answers/headers")
async def headers(request):
    answer = web.json_response({name.lower(): value for name, value in request.headers.items()})
    answer.set_cookie("easel_session", "mine")
    answer.headers["Access-Control-Allow-Origin"] = "*"
    return answer


@server.routes.get("/answers/page")
async def page(request):
    return web.Response(text="<script>1</script>", content_type="text/html")


@server.routes.get("/answers/stream")
async def stream(request):
    answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await answer.prepare(request)
    for number in range(3):
        await answer.write(f"{number} ".encode())
    await answer.write_eof()
    return answer


@server.routes.get("/answers/slow")
async def slow(request):
    await asyncio.sleep(float(request.query["seconds"]))
    return web.Response(text="at last")


@server.routes.get("/answers/fails")
async def fails(request):
    raise ValueError("not today")


@server.routes.get("/answers/list")
async def again(request):
    return web.Response(text="a second one of that path")


@server.routes.get("/studio/status")
async def pretends(request):
    return web.Response(text="not the studio's")


@server.routes.get("/{everything:.*}")
async def everything(request):
    return web.Response(text="not the page")


@server.routes.get("/e{rest:.*}")
@server.routes.post("/e{rest:.*}")
async def greedy(request):
    return web.Response(text="greedy")


server.app.router.add_static("/answers_files/", os.path.join(os.path.dirname(__file__), "files"))


def fail_at_prompts(body):
    raise RuntimeError("this handler never works")


def greet(body):
    for node in body["prompt"].values():
        if node["inputs"].get("text") == "greet me":
            node["inputs"]["text"] = "hello"
    return body


server.add_on_prompt_handler(fail_at_prompts)
server.add_on_prompt_handler(greet)

NODE_CLASS_MAPPINGS = {}

"""Is a prompt fit to run? ComfyUI's checks, error types and shapes, from the catalogue alone: no node is imported.

Every output node is judged alone: bad ones are dropped with the reasons, good ones still run. Values are coerced to
their type and written back. Nothing here recurses: a chain may be as long as a prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.graph.catalogue import Catalogue, Entry, Listing
from engine.graph.dynamic import DYNAMIC, MATCH_TYPE, Spec, live, specs_of
from engine.graph.links import is_link, unwrapped
from engine.graph.loops import Loops, loops_of
from engine.graph.node import Choices
from engine.workspace import Workspace

Prompt = dict[str, Any]
MAX_REPORTED = 1000  # nodes with errors that are reported; the rest of a hopeless prompt only counts as bad
MAX_CYCLES = 20  # cycles that are reported with their path
LINK_ONLY = {"IMAGE", "MASK", "LATENT", "CONDITIONING", "MODEL", "CLIP", "VAE"}  # no constant can be one of these
LISTED_CHOICES = 20  # longer lists of choices are not repeated in an error


@dataclass(frozen=True)
class CustomCheck:
    """One call of a node's own `validate`: constants as they are, links left out, with the types that links bring."""

    node_id: str
    class_type: str
    inputs: dict[str, Any]
    input_types: dict[str, str]


# Answers a list of custom checks, in order: {input name: True, or why not}. Runs where nodes can be imported.
Ask = Callable[[Sequence[CustomCheck]], Sequence[Mapping[str, Any]]]


@dataclass
class Validation:
    """What became of a prompt. `error` is None when something can run; `prompt` has the coerced values."""

    prompt: Prompt
    outputs: list[str] = field(default_factory=list)  # the good output nodes, in the prompt's order
    error: dict[str, Any] | None = None
    node_errors: dict[str, Any] = field(default_factory=dict)

    def misses_choice(self) -> bool:
        """Whether a value is refused only because no list has it."""
        errors = (error for node in self.node_errors.values() for error in node["errors"])
        return any(error["type"] == "value_not_in_list" for error in errors)

    def to_json(self) -> dict[str, Any]:
        """Body of the 400 answer of POST /prompt."""
        return {"error": self.error, "node_errors": self.node_errors}


def validate(
    prompt: Any,
    catalogue: Catalogue,
    workspace: Workspace,
    targets: Collection[str] | None = None,
    ask: Ask | None = None,
) -> Validation:
    """Judge an API prompt. `targets` are the only output nodes that count when given; `ask` runs nodes' own checks."""
    error = _malformed(prompt, catalogue)
    if error:
        return Validation(prompt if isinstance(prompt, dict) else {}, error=error)
    return _Judge(prompt, catalogue, Listing(workspace)).judge(targets, ask)


def request_error(kind: str, message: str, details: str = "", **extra: Any) -> dict[str, Any]:
    """The "error" part of an answer; also for what goes wrong before there is a prompt ("no_prompt")."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


def types_fit(received: Any, wanted: Any) -> bool:
    """Socket types: comma-separated sets that must meet; "*" meets all; a combo takes an equal list or "COMBO"."""
    if received in (wanted, MATCH_TYPE):
        return True
    if isinstance(received, list) or isinstance(wanted, list):
        return "COMBO" in (received, wanted) or "*" in (received, wanted)
    if received == "*" or wanted == "*":
        return True
    there, here = ({part.strip() for part in kind.split(",")} for kind in (received, wanted))
    return "*" in there or "*" in here or not there.isdisjoint(here)


def _wanted(spec: Sequence[Any]) -> Any:
    """What a link into an input must bring: of inputs whose types only have to match each other, what those allow."""
    if spec[0] != MATCH_TYPE:
        return spec[0]
    template = spec[1].get("template")
    return template.get("allowed_types", "*") if isinstance(template, Mapping) else "*"


def _malformed(prompt: Any, catalogue: Catalogue) -> dict[str, Any] | None:
    if not isinstance(prompt, dict):
        return request_error("invalid_prompt", "The prompt must be an object of nodes by id", type(prompt).__name__)
    for node_id, node in prompt.items():
        where = f"Node ID '#{node_id}'"
        if not isinstance(node, dict):
            return request_error("invalid_prompt", "Every node of a prompt must be an object", where, node_id=node_id)
        meta = node.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        about = {"node_id": node_id, "class_type": node.get("class_type"), "node_title": title}
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return request_error("missing_node_type", message, where, **about)
        name = node["class_type"]
        if not isinstance(name, str) or name not in catalogue or catalogue[name].internal:
            message = f"Cannot execute because node {str(name)[:200]} does not exist."
            return request_error("missing_node_type", message, where, **about)
        if not isinstance(node.get("inputs", {}), dict):
            return request_error("invalid_prompt", "A node's inputs must be an object", where, **about)
    return None


@dataclass(frozen=True)
class _Rule:
    """One declared input, ready to be checked against many nodes."""

    name: str
    spec: list[Any]  # [type or choices, options]
    required: bool
    own_check: bool  # the node's validate looks at it: range and membership are its business
    own_types: bool  # the node's validate looks at the types of links
    problem: Callable[[Any, str], str] | None  # choices that judge a name themselves (files)
    brings: bool = False  # which other inputs there are depends on its value


class _Judge:
    def __init__(self, prompt: Prompt, catalogue: Catalogue, listing: Listing) -> None:
        self.prompt = prompt
        self.catalogue = catalogue
        self.listing = listing
        self.errors: dict[str, list[dict[str, Any]]] = {}
        self.rules: dict[str, tuple[list[_Rule], dict[str, Spec]]] = {}  # by class_type; with its dynamic inputs
        self.coerced: dict[str, dict[str, Any]] = {}  # new inputs of nodes whose values changed
        self.custom: list[CustomCheck] = []
        self.cycles: list[Sequence[str]] = []

    def judge(self, targets: Collection[str] | None, ask: Ask | None) -> Validation:
        outputs = [
            node_id
            for node_id, node in self.prompt.items()
            if self._info(node)["output_node"] and (targets is None or node_id in targets)
        ]
        if not outputs:
            return Validation(self.prompt, error=request_error("prompt_no_outputs", "Prompt has no outputs"))
        loops = loops_of(self.prompt)
        inside = {output: end for output in outputs if (end := loops.outermost_end(output))}
        links = self._reach([*outputs, *inside.values()])
        self._tell_of_loops(loops, inside, links)
        roots = set(outputs)
        for node_id in links:
            self._check_node(node_id, is_root=node_id in roots)
        if self.custom and ask:
            self._apply_custom(ask)
        order = self._dissolve(links)
        return self._verdict(outputs, links, order)

    def _tell_of_loops(self, loops: Loops, inside: Mapping[str, str], links: dict[str, list[str]]) -> None:
        """Outputs inside of a loop run as their loop does, so that they hang on all that its end hangs on."""
        used = {source for sources in links.values() for source in sources}
        for output, end in inside.items():
            if output not in used:
                links[output] = [*links[output], end]
        for problem in loops.problems:
            if problem.node_id in links:
                error = request_error(problem.kind, problem.message, problem.details, loop_nodes=list(problem.nodes))
                self.errors.setdefault(problem.node_id, []).append(error)

    def _info(self, node: Mapping[str, Any]) -> dict[str, Any]:
        return self.catalogue[node["class_type"]].info

    def _inputs(self, node_id: str) -> dict[str, Any]:
        return self.prompt[node_id].get("inputs") or {}

    def _reach(self, outputs: Sequence[str]) -> dict[str, list[str]]:
        """{node: nodes that its declared inputs link to}, for the outputs and their ancestors."""
        reached: dict[str, list[str]] = {}
        stack = list(reversed(outputs))
        while stack:
            node_id = stack.pop()
            if node_id in reached:
                continue
            inputs = self._inputs(node_id)
            names: Iterable[str] = (rule.name for rule in self._rules_of(self.prompt[node_id]))
            if self.catalogue[self.prompt[node_id]["class_type"]].open_links:
                names = inputs
            sources = [
                inputs[name][0] for name in names if is_link(inputs.get(name)) and inputs[name][0] in self.prompt
            ]
            reached[node_id] = sources
            stack.extend(sources)
        return reached

    def _rules_of(self, node: Mapping[str, Any]) -> list[_Rule]:
        name = node["class_type"]
        if name not in self.rules:
            self.rules[name] = _rules(self.catalogue[name], self.listing)
        rules, dynamic = self.rules[name]
        if not dynamic:
            return rules
        inputs = live(dynamic, node.get("inputs") or {})
        entry = self.catalogue[name]
        return [
            *rules,
            *(replace(_rule(entry, flat, one.spec, None), brings=one.brings) for flat, one in inputs.items()),
        ]

    def _check_node(self, node_id: str, is_root: bool) -> None:
        node = self.prompt[node_id]
        inputs = self._inputs(node_id)
        new: dict[str, Any] = {}
        types: dict[str, str] = {}
        for rule in self._rules_of(node):
            if rule.name not in inputs:
                if rule.required:
                    self._add(node_id, "required_input_missing", "Required input is missing", rule.name, rule, False)
                continue
            value = inputs[rule.name]
            if isinstance(value, list):
                self._check_link(node_id, rule, value, types, is_root)
                continue
            plain = unwrapped(value)
            fitting = self._check_value(node_id, rule, plain)
            if fitting is not plain or (plain is not value and not isinstance(fitting, list)):
                new[rule.name] = fitting  # a literal list stays wrapped, so that it is never taken for a link
        if new:
            self.coerced[node_id] = {**inputs, **new}
        custom = self.catalogue[node["class_type"]].custom
        if custom != ():
            inputs = self.coerced.get(node_id, inputs)
            constants = {name: value for name, value in inputs.items() if not is_link(value)}
            self.custom.append(CustomCheck(node_id, node["class_type"], constants, types))

    def _check_link(self, node_id: str, rule: _Rule, link: list[Any], types: dict[str, str], is_root: bool) -> None:
        if not is_link(link) or link[1] != int(link[1]):
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            self._add(node_id, "bad_linked_input", message, rule.name, rule, received_value=link)
            return
        if rule.brings:
            details = f"{rule.name} decides which other inputs there are, so that its value must stand here"
            self._add(node_id, "invalid_dynamic_input", "Invalid dynamic input", details, rule, linked_node=link)
            return
        source, slot = link[0], int(link[1])
        if source not in self.prompt:
            self._dangling(node_id, rule, link, is_root, "KeyError", f"'{source}'")
            return
        entry = self.catalogue[self.prompt[source]["class_type"]]
        offered = entry.info["output"]
        if not 0 <= slot < len(offered) and not (entry.any_slot and offered and slot >= 0):
            why = f"{self.prompt[source]['class_type']} has {len(offered)} outputs, there is no slot {slot}"
            self._dangling(node_id, rule, link, is_root, "IndexError", why)
            return
        received, wanted = offered[min(slot, len(offered) - 1)], _wanted(rule.spec)
        types[rule.name] = received
        if not rule.own_types and not types_fit(received, wanted):
            details = f"{rule.name}, received_type({received}) mismatch input_type({wanted})"
            message = "Return type mismatch between linked nodes"
            about = {"received_type": received, "linked_node": link}
            self._add(node_id, "return_type_mismatch", message, details, rule, **about)

    def _dangling(self, node_id: str, rule: _Rule, link: list[Any], is_root: bool, kind: str, why: str) -> None:
        """A link to nothing. ComfyUI stumbles over it, and names the stumble by where it happens."""
        about: dict[str, Any] = {"exception_type": kind, "exception_message": why, "traceback": [], "linked_node": link}
        if is_root:
            message = "Exception when validating node"
            self._add(node_id, "exception_during_validation", message, why, rule, **about)
        else:
            message = "Exception when validating inner node"
            self._add(node_id, "exception_during_inner_validation", message, why, rule, **about)

    def _check_value(self, node_id: str, rule: _Rule, value: Any) -> Any:
        kind, options = rule.spec
        try:
            value = _coerce(kind, value, rule.required)
        except (ValueError, TypeError, OverflowError) as problem:
            message = f"Failed to convert an input value to a {kind} value"
            details = f"{rule.name}, {str(value)[:200]}, {problem}"
            shown = str(value) if isinstance(value, float) else value  # JSON has no infinity
            about = {"received_value": shown, "exception_message": str(problem)}
            self._add(node_id, "invalid_input_type", message, details, rule, **about)
            return value
        if rule.problem:
            why = rule.problem(self.listing.workspace, str(value))
            if why:
                details = f"{rule.name} - {why}"
                message = "Custom validation failed for node"
                self._add(node_id, "custom_validation_failed", message, details, rule, False)
        elif not rule.own_check:
            self._check_range(node_id, rule, value, options)
            if isinstance(kind, list) or kind == "COMBO":
                self._check_choice(node_id, rule, value, kind, options)
        return value

    def _check_range(self, node_id: str, rule: _Rule, value: Any, options: Mapping[str, Any]) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            self._add(node_id, "value_smaller_than_min", message, rule.name, rule, received_value=value)
        elif "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            self._add(node_id, "value_bigger_than_max", message, rule.name, rule, received_value=value)

    def _check_choice(self, node_id: str, rule: _Rule, value: Any, kind: Any, options: Mapping[str, Any]) -> None:
        if "remote" in options:  # an editor fetches those by itself
            return
        choices = kind if isinstance(kind, list) else options.get("options", [])
        multiple = options.get("multiselect") or options.get("multi_select")
        values = value if multiple and isinstance(value, list) else [value]
        wrong = [one for one in values if one not in choices]
        if not wrong:
            return
        long = len(choices) > LISTED_CHOICES
        listed = f"(list of length {len(choices)})" if long else str(choices)
        details = f"{rule.name}: '{str(wrong[0])[:500]}' not in {listed}"
        config = None if long else rule.spec
        about = {"input_config": config, "received_value": value}
        self._add(node_id, "value_not_in_list", "Value not in list", details, rule, **about)

    def _add(
        self, node_id: str, kind: str, message: str, details: str, rule: _Rule, config: bool = True, **about: Any
    ) -> None:
        extra = {"input_name": rule.name, **({"input_config": rule.spec} if config else {}), **about}
        error = {"type": kind, "message": message, "details": details, "extra_info": extra}
        self.errors.setdefault(node_id, []).append(error)

    def _apply_custom(self, ask: Ask) -> None:
        for check, answer in zip(self.custom, ask(self.custom), strict=True):
            for name, verdict in answer.items():
                if verdict is True:
                    continue
                details = name if verdict is False else f"{name} - {verdict}"
                error = request_error(
                    "custom_validation_failed", "Custom validation failed for node", details, input_name=name
                )
                self.errors.setdefault(check.node_id, []).append(error)

    def _dissolve(self, links: Mapping[str, Sequence[str]]) -> list[str]:
        """The nodes, each after what it needs. A cycle is an error of each node on it, and is cut to go on."""
        users: dict[str, list[str]] = {node_id: [] for node_id in links}
        waiting = {node_id: len(sources) for node_id, sources in links.items()}
        for node_id, sources in links.items():
            for source in sources:
                users[source].append(node_id)
        order: list[str] = []
        ready = [node_id for node_id, count in waiting.items() if count == 0]
        candidates = iter(links)
        stuck = next(candidates, None)
        cycles = 0
        while True:
            while ready:
                node_id = ready.pop()
                if waiting.pop(node_id, None) is None:
                    continue
                order.append(node_id)
                for user in users[node_id]:
                    if user in waiting:
                        waiting[user] -= 1
                        if waiting[user] == 0:
                            ready.append(user)
            while stuck is not None and stuck not in waiting:
                stuck = next(candidates, None)
            if stuck is None:
                return order
            cycles += 1
            cycle = self._cycle_from(stuck, links, waiting) if cycles <= MAX_CYCLES else [stuck]
            self._report_cycle(cycle)
            ready.append(cycle[0])

    @staticmethod
    def _cycle_from(node_id: str, links: Mapping[str, Sequence[str]], waiting: Mapping[str, int]) -> list[str]:
        """A cycle found by walking to what each node waits for; every stuck node waits for a stuck one."""
        path: dict[str, int] = {}
        while node_id not in path:
            path[node_id] = len(path)
            node_id = next(source for source in links[node_id] if source in waiting)
        return list(path)[path[node_id] :]

    def _report_cycle(self, cycle: Sequence[str]) -> None:
        shown = [*cycle, cycle[0]] if len(cycle) < 50 else [*cycle[:25], "...", *cycle[-24:], cycle[0]]
        names = (f"{n} ({self.prompt[n]['class_type']})" if n in self.prompt else n for n in shown)
        details = " -> ".join(names)
        self.cycles.append(cycle)
        for node_id in cycle[:MAX_REPORTED]:
            error = request_error("dependency_cycle", "Dependency cycle detected", details, cycle_nodes=shown)
            self.errors.setdefault(node_id, []).append(error)

    def _verdict(self, outputs: list[str], links: Mapping[str, Sequence[str]], order: Sequence[str]) -> Validation:
        prompt = dict(self.prompt)
        for node_id, inputs in self.coerced.items():
            prompt[node_id] = {**prompt[node_id], "inputs": inputs}
        if not self.errors:
            return Validation(prompt, outputs)
        reported = list(self.errors)[:MAX_REPORTED]
        masks = self._bad_ancestors(reported, links, order)
        listed = outputs[:MAX_REPORTED]  # or errors times outputs could be a hundred million names
        node_errors = {
            node_id: {
                "errors": self.errors[node_id],
                "dependent_outputs": [o for o in listed if masks[o] >> bit & 1],
                "class_type": self.prompt[node_id]["class_type"],
            }
            for bit, node_id in enumerate(reported)
        }
        good = [o for o in outputs if not masks[o]]
        if good:
            return Validation(prompt, good, node_errors=node_errors)
        own = [error for o in outputs for error in self.errors.get(o, [])]
        details = "\n".join(f"{error['message']}: {error['details']}" for error in own[:MAX_REPORTED])
        error = request_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
        return Validation(prompt, error=error, node_errors=node_errors)

    def _bad_ancestors(
        self, reported: Sequence[str], links: Mapping[str, Sequence[str]], order: Sequence[str]
    ) -> dict[str, int]:
        """{node: bits of the reported nodes with errors that it is or hangs on}; one more bit for all the others."""
        other = 1 << len(reported)
        own = {node_id: other for node_id in self.errors}
        own.update({node_id: 1 << bit for bit, node_id in enumerate(reported)})
        for cycle in self.cycles:  # all of a cycle hang on each other; the order is cut somewhere
            together = 0
            for node_id in cycle:
                together |= own.get(node_id, 0)
            own.update(dict.fromkeys(cycle, together))
        masks: dict[str, int] = {}
        for node_id in order:
            mask = own.get(node_id, 0)
            for source in links[node_id]:
                mask |= masks.get(source, 0)  # absent only where a cycle was cut
            masks[node_id] = mask
        return masks


def _rules(entry: Entry, listing: Listing) -> tuple[list[_Rule], dict[str, Spec]]:
    """Its inputs, those that depend on others apart."""
    specs = specs_of(entry.resolved(listing)["input"])
    dynamic = {name: spec for name, spec in specs.items() if isinstance(spec.kind, str) and spec.kind in DYNAMIC}
    plain = (name for name in specs if name not in dynamic)
    return [_rule(entry, name, specs[name], entry.choices.get(name)) for name in plain], dynamic


def _rule(entry: Entry, name: str, spec: Spec, choices: Choices | None) -> _Rule:
    own_check = entry.custom is None or name.partition(".")[0] in entry.custom
    own_types = entry.custom is not None and "input_types" in entry.custom
    problem = getattr(choices, "problem", None)
    return _Rule(name, [spec.kind, dict(spec.options)], spec.required, own_check, own_types, problem)


def _coerce(kind: Any, value: Any, required: bool) -> Any:
    """The value as its type says; raises ValueError, TypeError or OverflowError when it can't be."""
    match kind:
        case "INT":
            return value if type(value) is int else int(value)
        case "FLOAT":
            number = value if type(value) is float else float(value)
            if not math.isfinite(number):
                raise ValueError("it is not a finite number")
            return number
        case "STRING":
            return value if type(value) is str else str(value)
        case "BOOLEAN":
            return value if type(value) is bool else bool(value)
    if isinstance(kind, str) and kind in LINK_ONLY and (required or value is not None):
        raise TypeError("it must be a link to another node")
    return value

"""Checks exchanges against a vendor's OpenAPI 3.0 document."""

import json
import re

from jsonschema import Draft202012Validator, FormatChecker


class Contract:
    """One document. `base` is the path of the API, which the document leaves out; `relax` corrects
    what is known to be out of date in it; fields in `answer_only` are not required in requests."""

    def __init__(self, file, base, relax, answer_only=()):
        document = json.loads(file.read_text())
        relax(document)
        self.base = base
        self.answers = as_json_schema(document)
        self.requests = without_required(self.answers, answer_only)
        self.operations = [(re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path)), path)
                           for path in self.answers["paths"]]
        # Fixed segments before parameters: /servers/actions is not /servers/{id}.
        self.operations.sort(key=lambda operation: operation[1].count("{"))

    def check(self, exchange):
        """Fails when the document does not allow the exchange. False when it does not know the operation."""
        path = exchange.path.removeprefix(self.base)
        template = next((template for pattern, template in self.operations if pattern.fullmatch(path)), None)
        method = exchange.method.lower()
        if method not in self.answers["paths"].get(template, {}):
            return False
        where = f"{exchange.method} {path} -> {exchange.status}"
        if exchange.status < 300 and exchange.request is not None:
            request = self.requests["paths"][template][method].get("requestBody", {})
            validate(self.requests, request, exchange.request, f"request of {where}")
        operation = self.answers["paths"][template][method]
        answers = {code.upper(): answer for code, answer in operation["responses"].items()}
        answer = answers.get(str(exchange.status)) or answers.get(f"{exchange.status // 100}XX")
        assert answer is not None, f"{where}: the document knows only {sorted(answers)}"
        validate(self.answers, answer, exchange.response, f"answer of {where}")
        return True


def validate(document, holder, instance, where):
    schema = holder.get("content", {}).get("application/json", {}).get("schema")
    if schema is None:
        return
    # The references lead into the document, so the schema must lie in it.
    validator = Draft202012Validator({**document, **schema}, format_checker=FormatChecker())
    errors = [explain(error) for error in validator.iter_errors(instance)]
    assert not errors, f"{where}:\n" + "\n".join(errors)


def explain(error):
    """The error, or what was wrong with each schema of a choice."""
    if error.context:
        return " | ".join(sorted({explain(cause) for cause in error.context}))
    return f"{error.json_path}: {error.message[:200]}"


def as_json_schema(node):
    """OpenAPI 3.0 says `nullable` where JSON Schema has a type."""
    if isinstance(node, list):
        return [as_json_schema(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    node = {key: as_json_schema(inner) for key, inner in node.items()}
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        if isinstance(node.get(bound), bool):
            del node[bound]
    if node.pop("nullable", False) is True:
        return {"anyOf": [node, {"type": "null"}]}
    return node


def without_required(node, names):
    """The document with no field of these names required."""
    if isinstance(node, list):
        return [without_required(inner, names) for inner in node]
    if not isinstance(node, dict):
        return node
    node = {key: without_required(inner, names) for key, inner in node.items()}
    if isinstance(node.get("required"), list):
        node["required"] = [name for name in node["required"] if name not in names]
    return node

//! The OpenAPI 3.1 document, made from the table of routes and the types of the wire.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::route::{Access, Param, Place, Route, Shape};
use super::wire::input::MEDIA_TYPE_PATTERN;
use super::wire::names::name_schema;
use crate::errors::Kind;
use feedlog_core::limits;

/// The whole document.
pub(crate) fn document(routes: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for route in routes {
        for (name, schema) in &route.schemas {
            let schema = serde_json::to_value(schema).expect("schemas are JSON");
            schemas.insert(name.clone(), schema);
        }
        let method = route.method.as_str().to_ascii_lowercase();
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[method] = operation(route);
    }
    schemas.insert("Error".into(), error_schema());
    schemas.insert("ImError".into(), super::im::error_schema());
    refine(&mut schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "feedlog",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A message store service for instant messaging: one ordered, durable log per conversation. \
                Times are milliseconds since the Unix epoch; ids and numbers stay below 2^53. A 2xx answer to a write is \
                given only once it is durable.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "feeds"}, {"name": "members"}, {"name": "messages"}, {"name": "entries"}, {"name": "streams"},
            {"name": "people"}, {"name": "mqant"}, {"name": "admin"}, {"name": "operation"},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "queryToken": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.about,
        "responses": responses(route),
    });
    let mut parameters: Vec<Value> = route.params.iter().map(parameter).collect();
    if route.access != Access::Public {
        parameters.push(json!({
            "name": "X-Feedlog-User",
            "in": "header",
            "required": false,
            "description": "Services (scope send-as): the user to act for.",
            "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,98}[!-~])?$"},
        }));
    }
    operation["parameters"] = Value::Array(parameters);
    if let Some(body) = &route.body {
        operation["requestBody"] = json!({
            "required": !body.optional,
            "content": {"application/json": {"schema": {"$ref": format!("#/components/schemas/{}", body.schema)}}},
        });
    }
    operation["security"] = match route.access {
        Access::Public => json!([]),
        Access::Principal => json!([{"bearer": []}]),
        Access::PrincipalOrQueryToken => json!([{"bearer": []}, {"queryToken": []}]),
    };
    operation
}

fn parameter(param: &Param) -> Value {
    let place = match param.place {
        Place::Path => "path",
        Place::Query => "query",
        Place::Header => "header",
    };
    json!({
        "name": param.name,
        "in": place,
        "required": param.required,
        "description": param.about,
        "schema": match param.shape {
            Shape::Feed => name_schema(limits::FEED_ID_BYTES_MAX, ""),
            Shape::Feeds => json!({"type": "array", "items": name_schema(limits::FEED_ID_BYTES_MAX, "")}),
            Shape::Uid | Shape::UidOrMe => name_schema(limits::UID_BYTES_MAX, ""),
            Shape::Reaction => name_schema(limits::REACTION_KEY_BYTES_MAX, ""),
            Shape::Int(min, max) => json!({"type": "integer", "format": "int64", "minimum": min, "maximum": max}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Text(max) => json!({"type": "string", "maxLength": max}),
        },
    })
}

/// The errors a route can answer with: its own, and those that its row brings with it.
fn errors(route: &Route) -> Vec<Kind> {
    let mut kinds = route.errors.to_vec();
    if route.access != Access::Public {
        kinds.extend([
            Kind::Unauthenticated,
            Kind::Forbidden,
            Kind::RateLimited,
            Kind::BadRequest,
            Kind::Unavailable,
        ]);
    }
    if !route.params.is_empty() {
        kinds.push(Kind::BadRequest);
    }
    if route.path.contains('{') || route.params.iter().any(|param| param.name == "cursor") {
        kinds.push(Kind::NotFound);
    }
    if route.path.contains("{feed}") {
        kinds.push(Kind::FeedNotFound);
    }
    if route.body.is_some() {
        kinds.extend([Kind::BadRequest, Kind::Timeout, Kind::TooLarge, Kind::UnsupportedMediaType]);
    }
    if route.method != axum::http::Method::GET {
        kinds.push(Kind::UnknownOutcome);
    }
    kinds.push(Kind::Internal);
    kinds
}

fn responses(route: &Route) -> Value {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
    for answer in &route.answers {
        let mut response = json!({"description": answer.about});
        if let Some((media, schema)) = &answer.body {
            response["content"] = json!({*media: {"schema": schema}});
        }
        responses.insert(answer.status.to_string(), response);
    }
    let mut by_status: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for kind in errors(route) {
        let codes = by_status.entry(kind.row().http).or_default();
        if !codes.contains(&kind.row().code) {
            codes.push(kind.row().code);
        }
    }
    let error = if route.enveloped { "#/components/schemas/ImError" } else { "#/components/schemas/Error" };
    for (status, codes) in by_status {
        let mut response = json!({
            "description": format!("`{}`", codes.join("`, `")),
            "content": {"application/json": {"schema": {"$ref": error}}},
        });
        match status {
            401 => {
                response["headers"] =
                    json!({"WWW-Authenticate": {"schema": {"type": "string"}, "required": true}});
            }
            429 => {
                response["headers"] = json!({"Retry-After": {
                    "schema": {"type": "integer", "minimum": 1}, "required": true, "description": "Seconds."
                }});
            }
            _ => {}
        }
        // A documented answer of the same status keeps its own body (readiness answers 503 with its reasons).
        responses.entry(status.to_string()).or_insert(response);
    }
    json!(responses)
}

fn error_schema() -> Value {
    let codes: Vec<&str> = Kind::ALL.iter().map(|kind| kind.row().code).collect();
    json!({
        "type": "object",
        "required": ["error"],
        "additionalProperties": false,
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message", "details"],
            "additionalProperties": false,
            "properties": {
                "code": {"type": "string", "enum": codes, "description": "Stable; for programs."},
                "message": {"type": "string", "description": "For people."},
                "details": {"type": "object", "description": "For programs; what there is depends on the code."},
            },
        }},
    })
}

/// What the types alone cannot say: fields that exclude or need each other.
fn refine(schemas: &mut BTreeMap<String, Value>) {
    let base64 = json!({
        "type": "string",
        "format": "byte",
        "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$",
        "description": "Bytes that are not JSON, in base64 with padding.",
    });
    let media = json!({
        "type": "string",
        "maxLength": limits::CONTENT_TYPE_BYTES_MAX,
        "pattern": MEDIA_TYPE_PATTERN,
        "description": "Media type of payload_base64. Of a JSON type the bytes must be JSON.",
    });
    let either = json!([
        {"required": ["payload"], "properties": {"payload_base64": false, "content_type": false}},
        {"required": ["payload_base64", "content_type"], "properties": {"payload": false}},
    ]);
    let any = json!({"description": "Any JSON; its exact text is kept and handed out unchanged."});
    for name in ["SendMessage", "EditBody"] {
        let Some(schema) = schemas.get_mut(name) else { continue };
        schema["properties"]["payload_base64"] = base64.clone();
        schema["properties"]["content_type"] = media.clone();
        schema["properties"]["payload"] = any.clone();
        schema["oneOf"] = either.clone();
    }
    // In a path's body the feed is not named; in a batch every message names its own.
    if let Some(Value::Object(schema)) = schemas.get("SendMessage").cloned() {
        let mut item = Value::Object(schema);
        item["properties"]["feed_id"] = json!({"$ref": "#/components/schemas/FeedId"});
        item["properties"]["sender"] = json!({"$ref": "#/components/schemas/Uid"});
        item["required"] = json!(["feed_id"]);
        schemas.insert("BatchMessage".into(), item);
    }
    if let Some(batch) = schemas.get_mut("BatchBody") {
        batch["properties"]["messages"]["items"] = json!({"$ref": "#/components/schemas/BatchMessage"});
    }
    for name in ["SendMessage", "RecallBody", "MarksBody", "ResolveBody"] {
        if let Some(Value::Object(properties)) = schemas.get_mut(name).and_then(|s| s.get_mut("properties")) {
            properties.remove("feed_id");
        }
    }
    if let Some(message) = schemas.get_mut("SendMessage").and_then(|s| s["properties"].as_object_mut()) {
        message.remove("sender");
    }
    if let Some(recall) = schemas.get_mut("RecallBody") {
        recall["properties"]["seq_id"] = json!({"$ref": "#/components/schemas/Whole"});
        recall["properties"]["client_msg_id"] = json!({"$ref": "#/components/schemas/ClientMsgId"});
        recall["properties"]["sender"] = json!({"$ref": "#/components/schemas/Uid"});
        recall["oneOf"] = json!([
            {"required": ["seq_id"], "properties": {"client_msg_id": false, "sender": false}},
            {"required": ["client_msg_id"], "properties": {"seq_id": false}},
        ]);
    }
    if let Some(entry) = schemas.get_mut("Entry") {
        entry["properties"]["payload"] = any.clone();
    }
    if let Some(send) = schemas.get_mut("ImSend") {
        send["properties"]["payload"] = any;
        send["required"] = json!(["feeds", "payload"]);
    }
    if let Some(message) = schemas.get_mut("ImMessage") {
        message["properties"]["Payload"] = json!({
            "description": "JSON as it was sent; other text as a string; other bytes as `{\"base64\"}`; of an entry that is \
                no message, its fields. Absent when recalled.",
        });
    }
    if let Some(recall) = schemas.get_mut("ImRecall") {
        recall["properties"]["seq_id"] = json!({"$ref": "#/components/schemas/Whole"});
        recall["properties"]["msg_id"] = json!({"$ref": "#/components/schemas/ClientMsgId"});
        recall["oneOf"] = json!([
            {"required": ["seq_id"], "properties": {"msg_id": false}},
            {"required": ["msg_id"], "properties": {"seq_id": false}},
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::app::routes;

    #[test]
    fn every_reference_resolves_and_every_id_is_unique() {
        let document = document(&routes());
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        let mut ids = std::collections::HashSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(ids.insert(operation["operationId"].clone()), "{method} {path}");
                assert!(operation["responses"]["500"].is_object(), "{method} {path}");
                let tag = operation["tags"][0].as_str().unwrap();
                assert!(
                    !tag.is_empty() && !operation["summary"].as_str().unwrap().is_empty(),
                    "{method} {path}"
                );
                for segment in path.split('/').filter_map(|s| s.strip_prefix('{')) {
                    let name = segment.trim_end_matches('}');
                    let known = operation["parameters"].as_array().unwrap().iter();
                    assert!(
                        known.clone().any(|p| p["name"] == name && p["in"] == "path"),
                        "{method} {path} {name}"
                    );
                }
            }
        }
    }
}

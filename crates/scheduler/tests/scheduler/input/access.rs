//! The table of Access.

use std::time::Duration;

use quiesce_testkit::input::{Rpc, Table, form, free, optional, present, required, rpc};
use serde_json::json;
use tonic::Code;

use super::ground::Ground;

const YEAR: Duration = Duration::from_secs(366 * 24 * 60 * 60);

#[tokio::test]
async fn wrong_requests_for_tokens_are_named_field_by_field_and_change_nothing() {
    let ground = Ground::prepare().await;
    ground.run(Table::of("quiesce.v1.Access", tokens())).await;
}

fn tokens() -> Vec<Rpc> {
    let wanted = json!({"token": {"displayName": "ann", "role": "ROLE_AGENT", "applications": ["applications/shop"]}});
    vec![
        rpc("CreateToken", wanted)
            .rows([
                present("token", &["token.display_name", "token.role"]),
                required("token.display_name", form::line(64)),
                required("token.role", form::known_value()),
                free("token.applications", "a list: see lists_of_applications_are_read_one_by_one"),
                optional("token.max_uses", form::number(1, i32::MAX)),
                optional("lifetime", form::duration(Duration::from_nanos(1), YEAR)),
            ])
            .rows(
                ["name", "uses", "creator", "create_time", "expire_time"]
                    .map(|field| free(format!("token.{field}"), "output only, and every answer is another")),
            ),
        rpc("ListTokens", json!({})).rows([
            optional("page_size", form::number(0, i32::MAX)),
            optional("page_token", form::opaque()).reason("INVALID_PAGE_TOKEN"),
        ]),
        rpc("RevokeToken", json!({"name": "tokens/tnone"})).rows([
            required(
                "name",
                vec![
                    ("bare".to_owned(), "tnone".into()),
                    ("of another collection".to_owned(), "applications/shop".into()),
                    ("without an identifier".to_owned(), "tokens/".into()),
                    ("in capitals".to_owned(), "tokens/T".into()),
                    ("too long".to_owned(), format!("tokens/{}", "a".repeat(41)).into()),
                ],
            )
            .but("tokens/tother", Code::NotFound, "TOKEN_NOT_FOUND"),
            optional("reason", form::text(4096)),
        ]),
    ]
}

//! Lists: P01 to P07.

use prost::Message as _;
use quiesce_protocol::v1;
use tonic::Code;

use crate::world::{World, application, bad_fields, expect_error};

fn list(page_size: i32, page_token: &str, filter: &str) -> v1::ListApplicationsRequest {
    v1::ListApplicationsRequest { page_size, page_token: page_token.to_owned(), filter: filter.to_owned() }
}

async fn names(world: &mut World, page_size: i32, filter: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = world.scheduler.list_applications(list(page_size, &token, filter)).await.unwrap().into_inner();
        names.extend(page.applications.into_iter().map(|application| application.name));
        token = page.next_page_token;
        if token.is_empty() {
            return names;
        }
    }
}

#[tokio::test]
async fn pages_cover_everything_once_and_in_order() {
    let mut world = World::start().await;
    for number in 0..7 {
        world.create(&format!("applications/app-{number}"), if number % 2 == 0 { "even" } else { "odd" }).await;
    }
    let all: Vec<String> = (0..7).map(|number| format!("applications/app-{number}")).collect();
    for size in [0, 1, 2, 3, 7, 100_000] {
        assert_eq!(names(&mut world, size, "").await, all, "page size {size}");
    }
    assert_eq!(names(&mut world, 1, "cluster = even").await.len(), 4);
    assert_eq!(names(&mut world, 2, "cluster = odd").await.len(), 3);
    let exact = world.scheduler.list_applications(list(7, "", "")).await.unwrap().into_inner();
    assert_eq!(exact.next_page_token, "", "the last page says that it is the last");
    assert_eq!(bad_fields(world.scheduler.list_applications(list(-1, "", "")).await), ["page_size"]);
    world.stop().await;
}

/// As much as an application may hold: a page of them by number alone would be beyond what clients receive.
#[tokio::test]
async fn pages_of_large_resources_stay_below_the_limit_of_a_message() {
    let mut world = World::start().await;
    let full = |key: &str| (0..64).map(|number| (format!("{key}{number}"), "x".repeat(1024))).collect();
    let all: Vec<String> = (10..30).map(|number| format!("applications/app-{number}")).collect();
    for name in &all {
        let policy = Some(v1::ShutdownPolicy { parameters: full("p"), ..Default::default() });
        let application = v1::Application { labels: full("l"), policy, ..application(name, "a") };
        let request = v1::CreateApplicationRequest { application: Some(application), ..Default::default() };
        world.scheduler.create_application(request).await.unwrap();
    }
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let page = world.scheduler.list_applications(list(500, &token, "")).await.unwrap().into_inner();
        assert!(page.encoded_len() < 1 << 20, "{} bytes", page.encoded_len());
        names.extend(page.applications.into_iter().map(|application| application.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, all);
    world.stop().await;
}

#[tokio::test]
async fn a_token_belongs_to_its_listing() {
    let mut world = World::start().await;
    for name in ["a", "b", "c"] {
        world.create(&format!("applications/{name}"), "a").await;
    }
    let page = world.scheduler.list_applications(list(1, "", "")).await.unwrap().into_inner();
    let other = world.scheduler.list_applications(list(1, &page.next_page_token, "cluster = a")).await;
    expect_error(other, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let garbage = world.scheduler.list_applications(list(1, "garbage", "")).await;
    expect_error(garbage, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    // What a token points at may go away between two pages.
    world.delete("a", true).await.unwrap();
    let rest = world.scheduler.list_applications(list(10, &page.next_page_token, "")).await.unwrap().into_inner();
    assert_eq!(rest.applications.len(), 2);
    world.stop().await;
}

#[tokio::test]
async fn a_bad_filter_says_where() {
    let mut world = World::start().await;
    let refused = world.scheduler.list_applications(list(0, "", "state = ACTIVE OR x")).await;
    assert_eq!(expect_error(refused, Code::InvalidArgument, "INVALID_FILTER")["position"], "15");
    let request = v1::WatchOperationsRequest { filter: "state = DEGRADED".to_owned(), ..Default::default() };
    let refused = world.scheduler.watch_operations(request).await.map(|_| ());
    expect_error(refused, Code::InvalidArgument, "INVALID_FILTER");
    world.stop().await;
}

#[tokio::test]
async fn operations_are_listed_newest_first() {
    let mut world = World::start().await;
    let mut made = Vec::new();
    for name in ["a", "b", "c"] {
        world.create(&format!("applications/{name}"), "x").await;
        made.push(world.delete(name, true).await.unwrap().name);
    }
    made.reverse();
    let request = v1::ListOperationsRequest { filter: "kind = DELETE AND name = op*".to_owned(), ..Default::default() };
    let found = world.scheduler.list_operations(request).await.unwrap().into_inner().operations;
    let found: Vec<String> = found.into_iter().map(|operation| operation.name).collect();
    assert_eq!(found, made);
    world.stop().await;
}

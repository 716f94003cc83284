//! Plain actix-ws: a session and a channel for each subscriber.

use std::sync::Mutex;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use fanout::{go, message, rate};
use futures_util::StreamExt;
use tokio::sync::mpsc;

type Subscribers = web::Data<Mutex<Vec<mpsc::Sender<String>>>>;

async fn subscribe(
    request: HttpRequest,
    body: web::Payload,
    subscribers: Subscribers,
) -> Result<HttpResponse, actix_web::Error> {
    let (response, mut session, mut messages) = actix_ws::handle(&request, body)?;
    let (sender, mut receiver) = mpsc::channel::<String>(1024);
    subscribers.lock().expect("a lock").push(sender);
    actix_web::rt::spawn(async move {
        loop {
            tokio::select! {
                text = receiver.recv() => {
                    let Some(text) = text else { return };
                    if session.text(text).await.is_err() {
                        return;
                    }
                }
                heard = messages.next() => if !matches!(heard, Some(Ok(_))) { return },
            }
        }
    });
    Ok(response)
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let subscribers: Subscribers = web::Data::new(Mutex::new(Vec::new()));
    let shared = subscribers.clone();
    actix_web::rt::spawn(async move {
        go().await;
        let mut timer = tokio::time::interval(Duration::from_secs_f64(1.0 / rate()));
        for seq in 1.. {
            timer.tick().await;
            let text = message(seq);
            subscribers.lock().expect("a lock").retain(|one| {
                !matches!(one.try_send(text.clone()), Err(mpsc::error::TrySendError::Closed(_)))
            });
        }
    });
    let server = HttpServer::new(move || {
        App::new().app_data(shared.clone()).route("/v1/stream", web::get().to(subscribe))
    })
    .workers(2)
    .bind(("127.0.0.1", 0))?;
    println!("ready {}", server.addrs()[0].port());
    server.run().await
}

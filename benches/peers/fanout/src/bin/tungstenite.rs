//! tokio-tungstenite with tokio's broadcast channel, two threads.

use std::time::Duration;

use fanout::{go, message, rate};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

#[tokio::main(worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("ready {}", listener.local_addr()?.port());
    let (sender, _) = broadcast::channel::<Utf8Bytes>(1024);
    let said = sender.clone();
    tokio::spawn(async move {
        go().await;
        let mut timer = tokio::time::interval(Duration::from_secs_f64(1.0 / rate()));
        for seq in 1.. {
            timer.tick().await;
            let _ = said.send(message(seq).into());
        }
    });
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut receiver = sender.subscribe();
        tokio::spawn(async move {
            let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
            let (mut write, mut read) = socket.split();
            loop {
                tokio::select! {
                    text = receiver.recv() => match text {
                        Ok(text) => if write.send(Message::Text(text)).await.is_err() { return },
                        Err(broadcast::error::RecvError::Lagged(_)) => {}
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                    heard = read.next() => if !matches!(heard, Some(Ok(_))) { return },
                }
            }
        });
    }
}

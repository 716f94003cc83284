//! An actor of one's own: a decision, a shell around it, and a supervisor that brings it back.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use peregrine_runtime::{
    AskError, ChildSpec, Children, Clock, Deadline, Envelope, Failure, Inbox, Mailbox, Strategy, SystemClock,
    TellError, Tree, Worker,
};

/// A new price of the one series that this actor keeps; answered with the volatility after it.
#[derive(Debug, actix::Message)]
#[rtype(result = "Result<f64, BadPrice>")]
struct Price(f64);

/// Whoever sent it acts.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("a price is above zero, not {0}")]
struct BadPrice(f64);

/// The decision: an exponentially weighted volatility. It knows no mailbox, thread or clock.
#[derive(Debug, Default)]
struct Volatility {
    last: Option<f64>,
    variance: f64,
}

impl Volatility {
    /// Weight of what was before, as RiskMetrics takes it for days.
    const KEPT: f64 = 0.94;

    fn after(&mut self, price: f64) -> Result<f64, BadPrice> {
        if !price.is_finite() || price <= 0.0 {
            return Err(BadPrice(price));
        }
        let step = self.last.map_or(0.0, |last| (price / last).ln());
        self.last = Some(price);
        self.variance = Self::KEPT * self.variance + (1.0 - Self::KEPT) * step * step;
        Ok(self.variance.sqrt())
    }
}

/// The shell: takes messages, answers them. It may block, since it has a thread of its own.
struct Keeper(Volatility);

impl Worker<Price> for Keeper {
    fn run(&mut self, inbox: &mut Inbox<Price>) -> Result<(), Failure> {
        while let Some(Envelope { message: Price(price), slot, .. }) = inbox.recv() {
            slot.send(self.0.after(price)); // nobody may wait any more, which is no failure
        }
        Ok(()) // the tree stops us
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock = Arc::new(SystemClock);
    let in_time = || Deadline::after(SystemClock.now(), Duration::from_secs(30));

    // A mailbox has a bound, and an address that is good before its actor starts and after it has failed: what is asked
    // now is answered once the actor is there.
    let mailbox = Mailbox::<Price>::new(2, clock.clone());
    let keeper = mailbox.address();
    assert!(keeper.tell(Price(100.0)).is_ok());
    let started = async {
        match keeper.tell(Price(102.0)) {
            Err(TellError::Full(Price(price))) => {
                println!("full: {price} is given back, nothing waits for room");
            }
            other => return Err(format!("{other:?}").into()),
        }
        let mut children = Children::new(Strategy::OneForOne);
        children.worker(ChildSpec::new("volatility"), mailbox, || Ok(Keeper(Volatility::default())));
        Ok::<_, Box<dyn Error>>(Tree::start(children, clock, 1)?)
    };
    let (queued, tree) = tokio::join!(biased; keeper.ask(Price(101.0), in_time()), started);
    let tree = tree?;
    println!("volatility {:.4}", queued??);

    // An ask always ends: with the answer, a refusal, or its deadline.
    println!("volatility {:.4}", keeper.ask(Price(99.0), in_time()).await??);
    println!("refused: {}", keeper.ask(Price(-1.0), in_time()).await?.expect_err("it is below zero"));

    // A panic costs the message that was being handled; the supervisor makes a new actor, and what is queued stays.
    tree.inject_panic("volatility");
    match keeper.ask(Price(100.0), in_time()).await {
        Ok(answer) => println!("brought back, it has forgotten: {answer:?}"),
        Err(AskError::Failed) => println!("this ask fell with it"),
        Err(other) => return Err(other.into()),
    }
    assert!(tree.wait_until(in_time(), |actors| actors[0].restarts == 1).await);

    let report = tree.stop(in_time()).await;
    println!("stopped: {report:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_price_has_no_volatility_and_a_step_has_its_share() {
        let mut volatility = Volatility::default();
        assert_eq!([100.0, 100.0].map(|price| volatility.after(price)), [Ok(0.0), Ok(0.0)]);
        let after = volatility.after(110.0).expect("a price");
        assert!((after - 0.06_f64.sqrt() * 1.1_f64.ln()).abs() < 1e-12, "{after}");
    }

    #[test]
    fn what_is_no_price_changes_nothing() {
        let mut volatility = Volatility { last: Some(100.0), variance: 0.5 };
        for wrong in [0.0, -1.0, f64::INFINITY] {
            assert_eq!(volatility.after(wrong), Err(BadPrice(wrong)));
        }
        assert_eq!(volatility.after(100.0), Ok((0.94_f64 * 0.5).sqrt()));
    }
}

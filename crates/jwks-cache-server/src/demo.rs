//! `jwks-cache demo`: the story. Each step does something to the cache or its providers and notes plain
//! numbers; what was promised, and whether it held, is `judge`'s to say, and how it looks is `tell`'s.

mod judge;
mod keep;
mod serve;
mod stage;
mod tell;

use std::process::ExitCode;
use std::time::Duration;

use jwks_cache::{
    Clock as _, Error, ErrorKind, KeyError, Moment, ProviderState, RefreshMode, Result, SystemClock, What,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cli::DemoArgs;
use crate::terminal;
use judge::{CALLERS, LIFETIME, Observation, Observations, STALE_WINDOW, Step, TOKENS};
use stage::{Caller, Counters, PROVIDER, Refused, Stage, Tally};
use tell::{Requests, StepTold, Teller};

/// How many times as fast as the wall policy time runs.
const FACTOR: u32 = 10;
const FAST_FACTOR: u32 = 60;
/// A story that takes longer hangs.
const LONGEST: Duration = Duration::from_secs(180);

/// Tells the story. The exit code is 0 only if every promise held.
pub(crate) async fn run(args: &DemoArgs) -> ExitCode {
    if let Some(folder) = &args.store {
        return keep::run(folder, args.json).await;
    }
    if args.serve {
        return serve::run(args).await;
    }
    let teller = if args.json { Teller::silent() } else { Teller::on_stdout() };
    let began = SystemClock.now();
    let factor = if args.fast { FAST_FACTOR } else { FACTOR };
    let mut story =
        Story { observations: Observations { factor, seen: Vec::new() }, told: Vec::new(), lookups: 0 };
    teller.opening(factor);
    match timeout(LONGEST, story.play(&teller)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => terminal::complain(&error, "the story ended early; please report it"),
        Err(hung) => terminal::complain(&hung, "the story hung; please report it"),
    }
    let verdicts = judge::judge(&story.observations);
    let took = SystemClock.now().since(began);
    if args.json {
        terminal::print(&tell::json(factor, took, &story.told, story.lookups, &verdicts));
    } else {
        teller.summary(took, &story.told, story.lookups, &verdicts);
    }
    ExitCode::from(u8::from(verdicts.iter().any(|verdict| !verdict.held)))
}

/// What has been seen and told so far.
struct Story {
    observations: Observations,
    told: Vec<StepTold>,
    lookups: u64,
}

impl Story {
    async fn play(&mut self, teller: &Teller) -> Result<()> {
        let stage = Stage::set(self.observations.factor).await?;
        let mut good_until = stage.clock.now();
        for step in Step::ALL {
            teller.begin(step);
            let before = stage.requests();
            let note = match step {
                Step::ColdStart => self.cold_start(&stage).await?,
                Step::Tokens => self.real_tokens(&stage).await?,
                Step::Freshness => self.staying_fresh(&stage).await?,
                Step::Rotation => self.rotation(&stage).await?,
                Step::Flood => self.flood(&stage).await?,
                Step::SlowProvider => self.slow_provider(&stage).await?,
                Step::DeadProvider => self.dead_provider(&stage, &mut good_until).await?,
                Step::StaleWindowOver => self.stale_window_over(&stage, good_until).await?,
                Step::Recovery => self.recovery(&stage).await?,
                Step::DeniedKey => self.denied_key(&stage).await?,
            };
            let [acme, globex] = stage.requests();
            let requests = Requests { acme: acme - before[0], globex: globex - before[1] };
            let told = StepTold { step, requests, note };
            teller.end(&told, &judge::judge_step(step, &self.observations));
            self.told.push(told);
        }
        for tenant in stage.tenants() {
            self.lookups += Counters::of(tenant, &stage.registry).await?.lookups;
        }
        stage.registry.shutdown().await;
        Ok(())
    }

    fn see(&mut self, id: &'static str, seen: u64) {
        self.see_within(id, seen, Duration::ZERO);
    }

    fn see_within(&mut self, id: &'static str, seen: u64, within: Duration) {
        self.observations.seen.push(Observation { id, seen, within });
    }

    async fn cold_start(&mut self, stage: &Stage) -> Result<String> {
        stage.tenants().iter().for_each(|tenant| tenant.idp.slow(Duration::from_millis(100)));
        let mut callers = JoinSet::new();
        for tenant in stage.tenants() {
            for _ in 0..CALLERS {
                let (caller, kid) = (tenant.caller.clone(), tenant.idp.signing_kid());
                callers.spawn(async move { caller.look(&kid).await });
            }
        }
        let (mut answered, mut slowest) = (0, Duration::ZERO);
        while let Some(Ok(got)) = callers.join_next().await {
            answered += u64::from(got.key.is_ok());
            slowest = slowest.max(got.took);
        }
        stage.tenants().iter().for_each(|tenant| tenant.idp.come_back());
        let requests = stage.requests();
        // Of the two, the one that is not as promised.
        self.see("cold.requests", requests.into_iter().find(|requests| *requests != 1).unwrap_or(1));
        self.see("cold.answered", answered);
        Ok(format!("the last caller had its key after {} ms", slowest.as_millis()))
    }

    async fn real_tokens(&mut self, stage: &Stage) -> Result<String> {
        let (mut verified, mut crossed, mut forged) = (0, 0, 0);
        for (tenant, other) in [(&stage.acme, &stage.globex), (&stage.globex, &stage.acme)] {
            for _ in 0..TOKENS {
                let token = tenant.token();
                verified += u64::from(tenant.caller.accepts(&token).await);
                crossed += u64::from(other.caller.accepts(&token).await);
                // The other tenant's key is not to be had for the token's own algorithm either.
                let confused = Caller { algorithm: tenant.caller.algorithm, ..other.caller.clone() };
                crossed += u64::from(confused.accepts(&token).await);
                forged += u64::from(tenant.caller.accepts(&altered(&token)).await);
            }
        }
        self.see("tokens.verified", verified);
        self.see("tokens.crossed", crossed);
        self.see("tokens.forged", forged);
        Ok("RS256 at acme, ES256 at globex; both keys are called \"k1\"".to_owned())
    }

    async fn staying_fresh(&mut self, stage: &Stage) -> Result<String> {
        let began = stage.clock.now();
        let end = began + LIFETIME * 4;
        let before = stage.requests();
        let traffic = stage.tenants().map(|tenant| tenant.caller.keep_coming(tenant.token(), end));
        let mut tally = Tally::default();
        for traffic in traffic {
            tally = tally.and(traffic.end().await);
        }
        let within = end.since(began);
        let (mut most, mut whole) = (0, 0);
        for (tenant, before) in stage.tenants().into_iter().zip(before) {
            most = most.max(tenant.requests() - before);
            whole += tenant.unconditional_requests(before);
        }
        self.see_within("fresh.requests", most, within);
        self.see("fresh.whole", whole);
        self.see("fresh.waited", tally.waited);
        self.see("fresh.failed", tally.failed);
        Ok(format!("{} lookups over {} s, four lifetimes", tell::grouped(tally.lookups), within.as_secs()))
    }

    async fn rotation(&mut self, stage: &Stage) -> Result<String> {
        let (mut refused, mut requests, mut old, mut first) = (0, 0, 0, Duration::ZERO);
        for tenant in stage.tenants() {
            let old_tokens: Vec<_> = (0..TOKENS).map(|_| tenant.token()).collect();
            let traffic = tenant.caller.keep_coming(tenant.token(), Moment::FAR);
            let before = tenant.requests();
            tenant.idp.rotate();
            let began = SystemClock.now();
            let mut callers = JoinSet::new();
            for _ in 0..100 {
                let (caller, token) = (tenant.caller.clone(), tenant.token());
                callers.spawn(async move { (caller.accepts(&token).await, SystemClock.now()) });
            }
            let mut fastest = Moment::FAR;
            while let Some(Ok((accepted, at))) = callers.join_next().await {
                refused += u64::from(!accepted);
                fastest = fastest.min(at);
            }
            first = first.max(fastest.since(began));
            for token in &old_tokens {
                old += u64::from(tenant.caller.accepts(token).await);
            }
            requests = requests.max(tenant.requests_for_kids(before));
            refused += traffic.stop().await.failed;
        }
        self.see("rotation.refused", refused);
        self.see("rotation.requests", requests);
        self.see("rotation.old", old);
        Ok(format!("the first new token was verified after {}, one round trip", tell::millis(first)))
    }

    async fn flood(&mut self, stage: &Stage) -> Result<String> {
        let tenant = &stage.globex;
        let traffic = tenant.caller.keep_coming(tenant.token(), Moment::FAR);
        let (before, began) = (tenant.requests(), stage.clock.now());
        let (mut made_up, mut let_in) = (0, 0);
        for wave in 1..=4_u32 {
            let mut callers = JoinSet::new();
            for _ in 0..250 {
                let (caller, kid) = (tenant.caller.clone(), made_up_kid(&mut made_up));
                callers.spawn(async move { caller.look(&kid).await });
            }
            while let Some(Ok(got)) = callers.join_next().await {
                let_in += u64::from(!is_unknown(&got.key));
            }
            if wave < 4 {
                stage::sleep_until(stage.clock, began + Duration::from_secs(6) * wave).await;
            }
        }
        // The last wave has spent what there was to spend; the flood goes on while a real key comes.
        tenant.idp.rotate();
        let rotated = stage.clock.now();
        let token = tenant.token();
        while !tenant.caller.accepts(&token).await && stage.clock.now().since(rotated) < LIFETIME * 2 {
            let_in += u64::from(!is_unknown(&tenant.caller.look(&made_up_kid(&mut made_up)).await.key));
            stage.sleep(Duration::from_millis(250)).await;
        }
        let seen_after = stage.clock.now().since(rotated);
        let tally = traffic.stop().await;
        let within = stage.clock.now().since(began);
        self.see_within("flood.requests", tenant.requests_for_kids(before), within);
        self.see("flood.let_in", let_in);
        self.see("flood.waited", tally.waited + tally.failed);
        self.see("flood.rotation", in_millis(seen_after));
        Ok(format!(
            "{} made-up kids in {} s, and {} lookups of a known key meanwhile",
            tell::grouped(made_up),
            within.as_secs(),
            tell::grouped(tally.lookups)
        ))
    }

    async fn slow_provider(&mut self, stage: &Stage) -> Result<String> {
        let (tenant, registry) = (&stage.globex, &stage.registry);
        let mut patient = tenant.registration.clone();
        // Only readers start refreshes here, so that keys expire when nobody reads; and what hangs is given
        // up soon.
        patient.refresh_mode = RefreshMode::OnDemand;
        patient.stale_while_error = Duration::from_secs(3600);
        patient.retry_policy.attempt_timeout = Duration::from_secs(1);
        patient.retry_policy.deadline = Duration::from_secs(1);
        registry.register(patient).await?;
        registry.refresh_and_wait(tenant.name, PROVIDER).await?;
        let kid = tenant.idp.signing_kid();
        let look_often = async || {
            let mut tally = Tally::default();
            for _ in 0..1_000 {
                tally.take(&tenant.caller.look(&kid).await);
            }
            tally
        };

        let (hung, hits) = (tenant.idp.origin().hold(&tenant.path), tenant.idp.jwks_hits());
        registry.refresh(tenant.name, PROVIDER).await?;
        tenant.idp.origin().wait_for_hits(&tenant.path, hits + 1).await;
        let fresh = look_often().await;
        hung.release();
        registry.refresh_and_wait(tenant.name, PROVIDER).await?;

        stage.sleep(LIFETIME + Duration::from_secs(1)).await;
        let hung = tenant.idp.origin().hold(&tenant.path);
        let mut callers = JoinSet::new();
        for _ in 0..50 {
            let (caller, kid) = (tenant.caller.clone(), kid.clone());
            callers.spawn(async move { caller.look(&kid).await });
        }
        let (mut longest, mut expired) = (Duration::ZERO, Tally::default());
        while let Some(Ok(got)) = callers.join_next().await {
            longest = longest.max(got.took);
            expired.take(&got);
        }
        let later = look_often().await;
        hung.release();
        registry.refresh_and_wait(tenant.name, PROVIDER).await?;
        registry.register(tenant.registration.clone()).await?;
        let tally = fresh.and(expired).and(later);
        self.see("slow.fresh", fresh.waited);
        self.see("slow.expired", in_millis(longest));
        self.see("slow.later", later.waited);
        // Callers that broke down did not get their keys.
        self.see("slow.failed", tally.failed + 50_u64.saturating_sub(expired.lookups));
        Ok(format!(
            "{} of 50 callers for expired keys waited for the provider; then nobody did",
            expired.waited
        ))
    }

    async fn dead_provider(&mut self, stage: &Stage, good_until: &mut Moment) -> Result<String> {
        let (tenant, registry) = (&stage.acme, &stage.registry);
        registry.refresh_and_wait(tenant.name, PROVIDER).await?;
        *good_until = stage.clock.now() + LIFETIME + STALE_WINDOW;
        tenant.idp.fail_with(503);
        let (began, before) = (stage.clock.now(), tenant.requests());
        let counted_before = Counters::of(tenant, registry).await?;
        let end = *good_until - Duration::from_secs(2);
        let tally = tenant.caller.keep_coming(tenant.token(), end).end().await;
        let within = stage.clock.now().since(began);
        stage
            .wait_for(async || {
                let counted = Counters::of(tenant, registry).await;
                counted.is_ok_and(|counted| counted.state != ProviderState::Refreshing)
            })
            .await;
        let counted = Counters::of(tenant, registry).await?;
        let requests = tenant.requests() - before;
        self.see("dead.failed", tally.failed);
        self.see("dead.stale", counted.stale - counted_before.stale);
        self.see_within("dead.requests", requests, within);
        let errors = counted.refresh_errors - counted_before.refresh_errors;
        self.see("dead.uncounted", requests.abs_diff(errors));
        Ok(format!("{} lookups during {} s of outage", tell::grouped(tally.lookups), within.as_secs()))
    }

    async fn stale_window_over(&mut self, stage: &Stage, good_until: Moment) -> Result<String> {
        stage.acme.idp.go_down();
        let kid = stage.acme.idp.signing_kid();
        let (mut served, mut distinct, mut neighbour, mut said) = (0, 0, 0, String::new());
        // Soon after the window; and once more when the cache has tried again and found nobody there.
        for after in [Duration::from_secs(2), Duration::from_secs(12)] {
            stage::sleep_until(stage.clock, good_until + after).await;
            for _ in 0..50 {
                match stage.acme.caller.look(&kid).await.key {
                    Ok(_) => served += 1,
                    Err(error) => {
                        distinct += u64::from(error.kind() == ErrorKind::KeysUnavailable);
                        said = error.to_string();
                    }
                }
                let other = stage.globex.caller.look(&stage.globex.idp.signing_kid()).await;
                neighbour += u64::from(other.key.is_ok());
            }
        }
        self.see("over.served", served);
        self.see("over.distinct", distinct);
        self.see("over.neighbour", neighbour);
        Ok(format!("the error: {said}"))
    }

    async fn recovery(&mut self, stage: &Stage) -> Result<String> {
        let tenant = &stage.acme;
        let (mut events, before) = (stage.registry.subscribe(), tenant.requests());
        tenant.idp.come_back();
        let began = stage.clock.now();
        let token = tenant.token();
        while !tenant.caller.accepts(&token).await && stage.clock.now().since(began) < LIFETIME * 2 {
            stage.sleep(Duration::from_millis(250)).await;
        }
        self.see("recovery.time", in_millis(stage.clock.now().since(began)));
        self.see("recovery.requests", tenant.requests() - before);
        let told = timeout(Duration::from_secs(1), async {
            while let Some(event) = events.next().await {
                if &*event.tenant == tenant.name && matches!(event.what, What::Recovered) {
                    return 1;
                }
            }
            0
        });
        self.see("recovery.told", told.await.unwrap_or(0));
        Ok("nobody had to restart anything".to_owned())
    }

    async fn denied_key(&mut self, stage: &Stage) -> Result<String> {
        let (tenant, other) = (&stage.acme, &stage.globex);
        let kid = tenant.idp.signing_kid();
        stage.registry.deny_key(tenant.name, PROVIDER, &kid).await?;
        let (mut accepted, mut neighbour, mut allowed, mut said) = (0, 0, 0, String::new());
        for _ in 0..TOKENS {
            match tenant.caller.check(&tenant.token()).await {
                Ok(()) => accepted += 1,
                Err(Refused::Key(error)) => said = error.to_string(),
                Err(Refused::Signature) => {}
            }
            let elsewhere = other.idp.token_with(&kid, &serde_json::json!({"sub": "ada"}));
            neighbour += u64::from(other.caller.accepts(&elsewhere).await);
        }
        stage.registry.allow_key(tenant.name, PROVIDER, &kid).await?;
        for _ in 0..TOKENS {
            allowed += u64::from(tenant.caller.accepts(&tenant.token()).await);
        }
        self.see("denied.accepted", accepted);
        self.see("denied.neighbour", neighbour);
        self.see("denied.allowed", allowed);
        Ok(format!("the error for \"{kid}\" at acme: {said}"))
    }
}

/// The same header and signature around another subject.
fn altered(token: &str) -> String {
    let mut parts: Vec<_> = token.split('.').collect();
    // {"sub":"eve"}
    if let Some(claims) = parts.get_mut(1) {
        *claims = "eyJzdWIiOiJldmUifQ";
    }
    parts.join(".")
}

fn made_up_kid(count: &mut u64) -> String {
    *count += 1;
    // Spread over all bits, so that they look as an attacker's would.
    format!("{:016x}", count.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn is_unknown<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Key(KeyError::UnknownKid)))
}

fn in_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

//! A real browser without a screen, driven by the protocol of its developer tools over the websocket client beside this.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::WebSocket;

/// Longest wait for something that must come; reaching it is a failure, never a pass.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a page.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Chromium with one page; killed when dropped.
pub(crate) struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
    socket: WebSocket,
    session: Option<String>,
    calls: u64,
    faults: Vec<String>,
    /// Path and size of what came over the network, by request.
    came: BTreeMap<String, (String, u64)>,
}

impl Browser {
    /// Starts it with an empty page.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let profile = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("chromium");
        command
            .args(["--headless=new", "--remote-debugging-port=0", "--disable-gpu", "--hide-scrollbars"])
            // Tests run as root, in containers whose shared memory is small.
            .args(["--no-sandbox", "--disable-dev-shm-usage"])
            .args(["--no-first-run", "--disable-extensions", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().expect("chromium is installed: see tests/run");
        let mut said = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let address = loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).expect("text") > 0, "chromium ended before it listened");
            if let Some(address) = line.trim().strip_prefix("DevTools listening on ws://") {
                break address.to_owned();
            }
        };
        // It goes on talking, and must not wait for a reader.
        std::thread::spawn(move || std::io::copy(&mut said.by_ref(), &mut std::io::sink()));
        let (addr, path) = address.split_once('/').expect("an address and a path");
        let addr: SocketAddr = addr.parse().expect("an address");
        let socket = WebSocket::open(addr, &format!("/{path}"), None);
        socket.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (session, faults, came) = (None, Vec::new(), BTreeMap::new());
        let mut browser = Self { child, _profile: profile, socket, session, calls: 0, faults, came };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", attached);
        browser.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// A page of this size in pixels of a style sheet.
    pub(crate) fn resize(&mut self, width: u32, height: u32, is_phone: bool) {
        let scale = if is_phone { 2 } else { 1 };
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// `dark` or `light`, as the system would have it.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Goes to an address and waits until all of it was loaded.
    #[track_caller]
    pub(crate) fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        self.until("document.readyState === 'complete'");
    }

    /// The value of an expression, or of its promise.
    #[track_caller]
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let wish = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut answer = self.call("Runtime.evaluate", wish);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].take()
    }

    /// The text of the first element that a selector finds.
    #[track_caller]
    pub(crate) fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({})?.textContent ?? ''", json!(selector)));
        text.as_str().expect("text").trim().to_owned()
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        while self.value(&format!("Boolean({expression})")) != json!(true) {
            if Instant::now() > until {
                let page = self.value("document.body?.innerText ?? ''");
                panic!(
                    "`{expression}` not within {PATIENCE:?}; faults {:?}; the page says {page}",
                    self.faults
                );
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Presses a button, once it is there.
    #[track_caller]
    pub(crate) fn click(&mut self, selector: &str) {
        let selector = json!(selector);
        self.until(&format!("document.querySelector({selector})"));
        self.value(&format!("document.querySelector({selector}).click()"));
    }

    /// Writes into what has the focus, as a hand or the clipboard would.
    pub(crate) fn insert(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key as a hand would: `Tab`, `Enter`.
    pub(crate) fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "ArrowLeft" => 37,
            other => panic!("no code for {other}"),
        };
        for kind in ["rawKeyDown", "keyUp"] {
            let event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// What the console was told of errors, what scripts threw, and what the browser refused, since the last time.
    pub(crate) fn faults(&mut self) -> Vec<String> {
        // What happened before this call has been said before it is answered.
        self.value("0");
        std::mem::take(&mut self.faults)
    }

    /// Bytes that came for the files of the page, as they were sent.
    pub(crate) fn page_bytes(&mut self) -> u64 {
        self.value("0");
        let own = |path: &str| path == "/" || path.starts_with("/dashboard/");
        self.came.values().filter(|(path, _)| own(path)).map(|(_, bytes)| bytes).sum()
    }

    /// The whole page as a picture in `target/screenshots`.
    #[track_caller]
    pub(crate) fn picture(&mut self, name: &str) -> PathBuf {
        let size = self.value("[innerWidth, Math.min(16000, document.documentElement.scrollHeight)]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let wish = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let picture = self.call("Page.captureScreenshot", wish);
        let picture = STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(format!("{name}.png"));
        std::fs::write(&path, picture).expect("a file");
        path
    }

    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.text(&message.to_string());
        loop {
            let mut heard = self.socket.json();
            if heard["id"] == id {
                assert!(heard["error"].is_null(), "{method}: {}", heard["error"]);
                return heard["result"].take();
            }
            self.hear(&heard);
        }
    }

    fn hear(&mut self, event: &Value) {
        let params = &event["params"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match event["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => self.faults.push(format!("thrown: {}", params["exceptionDetails"])),
            "Runtime.consoleAPICalled" if matches!(params["type"].as_str(), Some("error" | "assert")) => {
                self.faults.push(format!("console: {}", params["args"]));
            }
            "Log.entryAdded" if params["entry"]["level"] == "error" => {
                let entry = &params["entry"];
                self.faults.push(format!(
                    "{}: {} {}",
                    text(&entry["source"]),
                    text(&entry["text"]),
                    text(&entry["url"])
                ));
            }
            "Network.responseReceived" => {
                let url = text(&params["response"]["url"]);
                let path = url.splitn(4, '/').nth(3).map_or("/".to_owned(), |path| format!("/{path}"));
                self.came.insert(text(&params["requestId"]), (path, 0));
            }
            "Network.loadingFinished" => {
                if let Some((_, bytes)) = self.came.get_mut(&text(&params["requestId"])) {
                    *bytes = params["encodedDataLength"].as_f64().unwrap_or_default() as u64;
                }
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers are in its group.
        let group = i32::try_from(self.child.id()).expect("a pid");
        // SAFETY: no memory is involved; the child has not been waited for, so the group is its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        let _ = self.child.wait();
    }
}

//! A headless Chromium, driven over its debugging pipe: messages of JSON, each ended by a zero byte.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

/// Longest wait for an answer of the browser; its start takes seconds on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A browser with one tab; it ends with the test.
pub(crate) struct Browser {
    child: Child,
    commands: pipe::Sender,
    answers: pipe::Receiver,
    read: Vec<u8>,
    session: Option<String>,
    sent: u64,
    complaints: Vec<String>,
}

/// What somebody presses.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Key {
    Letter(char),
    Enter,
    Escape,
}

impl Browser {
    /// Starts it, with its files in `directory`.
    pub(crate) async fn open(directory: &Path) -> Self {
        let place = tempfile::Builder::new().prefix("browser-").tempdir_in(directory).unwrap().keep();
        let (commands, answers) = (place.join("commands"), place.join("answers"));
        assert!(Command::new("mkfifo").args([&commands, &answers]).status().unwrap().success());
        // Opened for both, a pipe does not wait for whoever is at its other end.
        let mut both = pipe::OpenOptions::new();
        both.read_write(true);
        let (sender, receiver) = (both.open_sender(&commands).unwrap(), both.open_receiver(&answers).unwrap());
        // Without its sandbox, which root may not use. It looks at nothing but our own page.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --remote-debugging-pipe \
                      --user-data-dir=\"$PWD/profile\" about:blank 3<commands 4>answers";
        let child = Command::new("bash")
            .args(["-c", script])
            .current_dir(&place)
            .env("HOME", &place)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Self {
            child,
            commands: sender,
            answers: receiver,
            read: Vec::new(),
            session: None,
            sent: 0,
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" })).await;
        let wanted = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", wanted).await;
        browser.session = Some(session["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser
    }

    /// Goes there.
    pub(crate) async fn visit(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({ "url": url })).await;
        assert!(went["errorText"].is_null(), "{url}: {went}");
    }

    /// What `script` comes to on the page.
    pub(crate) async fn run(&mut self, script: &str) -> Value {
        let wanted = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let mut came = self.call("Runtime.evaluate", wanted).await;
        assert!(came["exceptionDetails"].is_null(), "{script}: {came}");
        came["result"]["value"].take()
    }

    /// Presses and releases a key.
    pub(crate) async fn press(&mut self, key: Key) {
        let (name, text, code) = match key {
            Key::Letter(letter) => (letter.to_string(), letter.to_string(), 0),
            Key::Enter => ("Enter".to_owned(), "\r".to_owned(), 13),
            Key::Escape => ("Escape".to_owned(), String::new(), 27),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": name, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && !text.is_empty() {
                event["text"] = json!(text);
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Prefers `light` or `dark` pages.
    pub(crate) async fn prefers(&mut self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
    }

    /// Errors of scripts, and what the page was not allowed to do.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.clone()
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.sent += 1;
        let mut message = json!({ "id": self.sent, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).await.unwrap();
        let answer = tokio::time::timeout(ANSWER_LIMIT, self.answer());
        let mut answer = answer.await.unwrap_or_else(|_| panic!("the browser does not answer {method}"));
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].take()
    }

    /// The answer to what was sent last.
    async fn answer(&mut self) -> Value {
        loop {
            while let Some(end) = self.read.iter().position(|byte| *byte == 0) {
                let rest = self.read.split_off(end + 1);
                let message = std::mem::replace(&mut self.read, rest);
                let message: Value = serde_json::from_slice(&message[..end]).unwrap();
                if message["id"] == self.sent {
                    return message;
                }
                let is_error = message["params"]["entry"]["level"] == "error";
                if message["method"] == "Runtime.exceptionThrown" || (message["method"] == "Log.entryAdded" && is_error)
                {
                    self.complaints.push(message["params"].to_string());
                }
            }
            assert!(self.answers.read_buf(&mut self.read).await.unwrap() > 0, "the browser has ended");
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It has ended, or is ended here.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

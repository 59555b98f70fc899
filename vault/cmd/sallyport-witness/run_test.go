package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/policies/evidence"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// vkey is an Ed25519 verifier key of a log.
var vkey = func() string {
	key, err := note.NewEd25519VerifierKey("vault.test/log", ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))
	if err != nil {
		panic(err)
	}
	return key
}()

func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// configured writes a configuration and returns its path.
func configured(t *testing.T, dir, more string) string {
	t.Helper()
	path := filepath.Join(dir, "witness.toml")
	text := fmt.Sprintf("key = %q\nstate = %q\nseen = %q\nlisten = \"127.0.0.1:0\"\nready_file = %q\n", dir+"/key", dir+"/state", dir+"/seen", dir+"/ready")
	must(t, os.WriteFile(path, []byte(text+more), 0o600))
	return path
}

func TestDocumentedConfigurationIsTheDefault(t *testing.T) {
	text := documented
	for _, name := range []string{"key", "state", "seen"} { // of the top, which come first
		text = strings.Replace(text, "\n"+name+" = \"\"", "\n"+name+" = \"x"+name+"\"", 1)
	}
	path := filepath.Join(t.TempDir(), "witness.toml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	got, err := loadConfig(path)
	must(t, err)
	want := defaults()
	want.Key, want.State, want.Seen, want.Logs = "xkey", "xstate", "xseen", []logConfig{{Also: []string{}}}
	if fmt.Sprint(*got) != fmt.Sprint(want) {
		t.Errorf("documented %+v\ndefault    %+v", *got, want)
	}
	if code, stdout, _ := call(t, "config"); code != 0 || stdout != documented {
		t.Error("config does not print the documented configuration")
	}
}

func TestConfigurationRefuses(t *testing.T) {
	good := "key='x'\nstate='x'\nseen='y'\n"
	for text, want := range map[string]string{
		"":                               "needed",
		good + "surprise=1\n":            "surprise",
		"key='x'\nstate='x'\nseen='x'":   "two folders",
		good + "certificate='x'\n":       "go together",
		good + "burst=0\n":               "more than 0",
		good + "per_second=nan\n":        "per_second",
		good + "per_second=inf\n":        "per_second",
		good + "[[log]]\nsurprise='x'":   "surprise",
		good + "[":                       "reading",
		good + "connections='several'\n": "connections",
	} {
		path := filepath.Join(t.TempDir(), "witness.toml")
		must(t, os.WriteFile(path, []byte(text), 0o600))
		if code, _, stderr := call(t, "serve", "--config", path); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, %s, want a word on %s", text, code, stderr, want)
		}
	}
	dir := t.TempDir()
	if code, _, stderr := call(t, "init", "--config", configured(t, dir, ""), "--name", "witness.test/w1"); code != 0 {
		t.Fatal(stderr)
	}
	for text, want := range map[string]string{
		"":                                        "no [[log]]",
		"[[log]]\n":                               "vault or key",
		"[[log]]\nkey='" + vkey + "'\nvault='x'":  "not both",
		"[[log]]\nkey='" + vkey + "'\njoin='x'":   "join goes with vault",
		"[[log]]\nvault='x'":                      "with vault goes join",
		"[[log]]\nvault='/none'\njoin='x'":        "no such file",
		"[[log]]\nkey='" + vkey + "x'":            "verifier key",
		"[[log]]\nkey='" + vkey + "'\nalso=['x']": "verifier key",
		"[[log]]\nkey='" + vkey + "'\nalso=['" + vkey + "']": "0x01 do not cosign",
	} {
		if code, _, stderr := call(t, "serve", "--config", configured(t, dir, text)); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, %s, want a word on %s", text, code, stderr, want)
		}
	}
	if code, _, _ := call(t, "surprise"); code != exitUsage {
		t.Error(code)
	}
	if code, stdout, _ := call(t, "--help"); code != 0 || !strings.Contains(stdout, "C2SP tlog-witness") {
		t.Error("no help")
	}
}

func TestServe(t *testing.T) {
	dir := t.TempDir()
	path := configured(t, dir, "[[log]]\nkey = \""+vkey+"\"\n")
	code, stdout, stderr := call(t, "init", "--config", path, "--name", "witness.test/w1")
	if code != 0 {
		t.Fatal(stderr)
	}
	keys := strings.Fields(stdout)
	if len(keys) != 2 {
		t.Fatalf("printed %q", stdout)
	}
	for i, kind := range []evidence.CosignatureType{evidence.CosignatureMLDSA44, evidence.CosignatureEd25519} {
		if c, err := evidence.ParseCosigner(keys[i]); err != nil || c.Type != kind || c.Name != "witness.test/w1" {
			t.Errorf("key %d: %+v, %v", i, c, err)
		}
	}
	if code, again, _ := call(t, "keys", "--config", path); code != 0 || again != stdout {
		t.Errorf("keys prints %q", again)
	}
	if code, _, stderr := call(t, "init", "--config", path, "--name", "witness.test/w2"); code != exitFailure || !strings.Contains(stderr, "exists") {
		t.Errorf("a second init: %d %s", code, stderr)
	}
	secret, err := os.ReadFile(dir + "/key")
	must(t, err)
	var seed struct{ Seed string }
	must(t, json.Unmarshal(secret, &seed))

	must(t, os.Chmod(dir+"/key", 0o644))
	if code, _, stderr := call(t, "serve", "--config", path); code != exitFailure || !strings.Contains(stderr, "0600") {
		t.Errorf("with a key for everybody: %d %s", code, stderr)
	}
	must(t, os.Chmod(dir+"/key", 0o600))

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs bytes.Buffer
	done := make(chan int, 1)
	go func() { done <- run(ctx, []string{"serve", "--config", path}, &out, &errs) }()
	var ready struct{ Addresses map[string]string }
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if data, err := os.ReadFile(dir + "/ready"); err == nil {
			must(t, json.Unmarshal(data, &ready))
			break
		}
		if time.Now().After(end) {
			t.Fatal("not ready")
		}
	}
	response, err := http.Post("http://"+ready.Addresses["witness"]+"/add-checkpoint", "text/plain", strings.NewReader("old 0\n\nother.test\n0\n\n"))
	must(t, err)
	response.Body.Close()
	if response.StatusCode != 404 {
		t.Errorf("an unknown log: %d", response.StatusCode)
	}
	if code, _, stderr := call(t, "serve", "--config", path); code != exitFailure || !strings.Contains(stderr, "another witness") {
		t.Errorf("a second one at the same state: %d %s", code, stderr)
	}
	stop()
	if code := <-done; code != 0 {
		t.Errorf("exit code %d: %s", code, &errs)
	}
	if all := stdout + out.String() + errs.String(); strings.Contains(all, seed.Seed) {
		t.Error("the seed was printed")
	}

	files, err := filepath.Glob(dir + "/seen/*")
	must(t, err)
	must(t, os.WriteFile(files[0], []byte("vault.test/log\n9\nAAAA\n"), 0o600))
	if code, _, stderr := call(t, "serve", "--config", path); code != exitState || !strings.Contains(stderr, "cannot be trusted") {
		t.Errorf("with a damaged record: %d %s", code, stderr)
	}
}

// TestKeyConceals: a process that made or read the witness's key can be neither dumped nor debugged by its own user.
func TestKeyConceals(t *testing.T) {
	dir := t.TempDir()
	path := configured(t, dir, "[[log]]\nkey = \""+vkey+"\"\n")
	for _, args := range [][]string{{"init", "--config", path, "--name", "witness.test/w"}, {"keys", "--config", path}} {
		must(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
		if code, _, stderr := call(t, args...); code != exitOK {
			t.Fatalf("%v: %d, %s", args, code, stderr)
		}
		if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || dumpable != 0 {
			t.Errorf("%s: dumpable is %d, %v", args[0], dumpable, err)
		}
	}
}

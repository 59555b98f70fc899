package reading

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// stamp is written by ./tests/reading/install: the SHA-256 of the lock file that node_modules was made from.
const stamp = "node_modules/.sallyport-lock"

// ready finds node and demands the installed packages that package-lock.json names.
func ready(t *testing.T) (node string) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is missing: install Debian's packages nodejs and npm, or Node 18.13 or newer from https://nodejs.org, then run ./tests/reading/install")
	}
	out, err := exec.Command(node, "--version").Output()
	var major, minor int
	if _, scan := fmt.Sscanf(string(out), "v%d.%d", &major, &minor); err != nil || scan != nil || major < 18 || major == 18 && minor < 13 {
		t.Fatalf("%s is %q (%v); Node 18.13 or newer is needed", node, strings.TrimSpace(string(out)), err)
	}
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	if have, err := os.ReadFile(stamp); err != nil || strings.TrimSpace(string(have)) != hex.EncodeToString(sum[:]) {
		t.Fatal("the packages of package-lock.json are not installed: run ./tests/reading/install (it needs npm, and a registry the first time)")
	}
	return node
}

// process is a running src/serve.js. One goroutine may use it.
type process struct {
	in   io.WriteCloser
	out  *bufio.Reader
	http *http.Client // carries the requests of parties; nil where there are none
}

// open starts one and ends it with the test.
func open(t *testing.T) *process {
	t.Helper()
	cmd := exec.Command(ready(t), "src/serve.js")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // it ends when its input does
		if err := cmd.Wait(); err != nil {
			t.Errorf("src/serve.js: %v\n%s", err, stderr.String())
		}
	})
	return &process{in: in, out: bufio.NewReaderSize(out, 1<<20)}
}

// request is one line to src/serve.js.
type request struct {
	File      string `json:"file,omitempty"`
	Party     string `json:"party,omitempty"`
	Operation string `json:"operation"`
	In        any    `json:"in"`
}

// result is what it says: "ok" and an output, or a kind of refusal and why.
type result struct {
	Expect string          `json:"expect"`
	Why    string          `json:"why"`
	Out    json.RawMessage `json:"out"`
	HTTP   *carried        `json:"http"`
}

// carried is an HTTP request that a party wants carried.
type carried struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

// ask runs one operation.
func (p *process) ask(t *testing.T, r request) result {
	t.Helper()
	p.say(t, r)
	for {
		line, err := p.out.ReadBytes('\n')
		if err != nil {
			t.Fatalf("%s of %s%s: src/serve.js is gone: %v", r.Operation, r.File, r.Party, err)
		}
		var got result
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("src/serve.js says %.200q: %v", line, err)
		}
		if got.HTTP != nil {
			p.say(t, p.carry(t, got.HTTP))
			continue
		}
		if got.Expect == "crash" {
			t.Fatalf("%s of %s%s: %s", r.Operation, r.File, r.Party, got.Why)
		}
		return got
	}
}

func (p *process) say(t *testing.T, v any) {
	t.Helper()
	line, err := json.Marshal(v)
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// carry sends a request as it is: body and signature headers are the JavaScript's own.
func (p *process) carry(t *testing.T, c *carried) any {
	t.Helper()
	body, err := base64.StdEncoding.DecodeString(c.Body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), c.Method, c.URL, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range c.Headers {
		r.Header.Set(name, value)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := p.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err = io.ReadAll(answer.Body); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"status": answer.StatusCode, "body": body}
}

// ok runs an operation that must succeed and decodes its output.
func ok[T any](t *testing.T, p *process, r request) (out T) {
	t.Helper()
	got := p.ask(t, r)
	if got.Expect != "ok" {
		t.Fatalf("%s of %s%s: %s", r.Operation, r.File, r.Party, got.Why)
	}
	if err := json.Unmarshal(got.Out, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// operation is a request of the vectors' operations: inputs in pairs of name and value.
func operation(file, name string, pairs ...any) request {
	in := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		in[pairs[i].(string)] = plain(pairs[i+1])
	}
	return request{File: file, Operation: name, In: in}
}

// plain writes a value as the vectors do: bytes as hexadecimal, integers in decimal.
func plain(v any) any {
	switch v := v.(type) {
	case []byte:
		return hex.EncodeToString(v)
	case uint64, int, int64:
		return fmt.Sprint(v)
	case fmt.Stringer: // ids and hashes
		return v.String()
	case [][]byte:
		out := make([]string, len(v))
		for i := range v {
			out[i] = hex.EncodeToString(v[i])
		}
		return out
	}
	return v
}

// bin is bytes in hexadecimal.
type bin []byte

// UnmarshalText reads them.
func (b *bin) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// need is a value without an error: need(f())(t).
func need[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

package export

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

// TestJSON: an event for each entry, with what the entry says and what follows from those before.
func TestJSON(t *testing.T) {
	l, owner, acme, bank := everything(t)
	events := objects(t, l.exported(t, JSONL, false))
	if len(events) != len(l.leaves) {
		t.Fatalf("%d events of %d entries", len(events), len(l.leaves))
	}
	find := func(kind, outcome string, n int) map[string]any {
		for _, e := range events {
			if e["kind"] == kind && (outcome == "" || e["outcome"] == outcome) {
				if n--; n < 0 {
					return e
				}
			}
		}
		t.Fatalf("there is no %s %s", kind, outcome)
		return nil
	}
	for i, e := range events {
		if e["index"] != float64(i) || e["uid"] != fmt.Sprintf("vault.example/log/%d", i) || e["format"] != eventFormat || e["message"] == "" || e["time"] == "" {
			t.Fatalf("event %d is %v", i, e)
		}
	}
	want := func(e map[string]any, members map[string]any) {
		t.Helper()
		for name, value := range members {
			if fmt.Sprint(e[name]) != fmt.Sprint(value) {
				t.Errorf("%s %s: %s is %v, want %v", e["kind"], e["outcome"], name, e[name], value)
			}
		}
	}
	want(find("use", "released", 0), map[string]any{
		"owner": owner.pseudo, "owner_id": owner.id, "reader": acme.pseudo, "reader_id": acme.id, "reader_name": "ACME | \"a=b\" \\ Ltd", "field": "phone.mobile", "author": owner.pseudo,
		"token": "token-1", "grade": "A", "clock_skew_ms": 2, "clock_step": nil, "revoked_before": nil, "severity": 1, "time": "2026-03-01T12:00:00.100Z",
	})
	want(find("grant", "accepted", 0), map[string]any{"fields": "[phone.mobile postal]", "purpose": "delivery", "refers_to": 5, "custody": "resident"})
	want(find("refusal", "no_grant", 1), map[string]any{"owner": owner.pseudo, "owner_id": owner.id, "reader": acme.pseudo}) // a stranger's
	want(find("revocation", "", 0), map[string]any{"reader": acme.pseudo, "reader_id": acme.id, "fields": "[postal]"})
	want(find("revocation", "", 1), map[string]any{"reader": nil, "readers": fmt.Sprint([]any{acme.pseudo, bank.pseudo}), "fields": "[phone.mobile iban name]"})
	want(find("start", "", 2), map[string]any{"grade": "C", "grade_changed": true, "grade_before": "A", "severity": 3})
	want(find("use", "no_grant", 0), map[string]any{"body": "erased", "owner": owner.pseudo, "field": nil})
	revocation := find("revocation", "", 1)["index"]
	after := 0
	for _, e := range events {
		if e["revoked_before"] == true {
			after++
			if after == 1 {
				want(e, map[string]any{"revoked_by": revocation, "field": "iban", "severity": 4})
			}
		}
	}
	if after != 2 { // the last is of a field that the innocent log revoked
		t.Errorf("%d uses after a revocation, want 2", after)
	}
	step := 0
	for _, e := range events {
		if e["clock_step"] == true {
			step++
			want(e, map[string]any{"clock_skew_ms": 3_600_002.0})
		}
	}
	if step != 1 {
		t.Errorf("%d clock steps, want 1", step)
	}
}

// TestFields: each member of an event is in the README.
func TestFields(t *testing.T) {
	readme := string(must(os.ReadFile("README.md")))
	for _, of := range []reflect.Type{reflect.TypeFor[Event](), reflect.TypeFor[Fault]()} {
		for i := range of.NumField() {
			if name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ","); name != "" && !strings.Contains(readme, "`"+name+"`") {
				t.Errorf("README.md does not say what %q means", name)
			}
		}
	}
}

// TestPseudonyms: no id and no name leaves, in any format.
func TestPseudonyms(t *testing.T) {
	l, owner, acme, bank := everything(t)
	for _, f := range []Format{JSONL, OCSF, CEF} {
		with, without := string(l.exported(t, f, false)), string(l.exported(t, f, true))
		for _, secret := range []string{owner.id.String(), acme.id.String(), bank.id.String(), owner.id.String()[:8], acme.id.String()[:8], "ACME", "Bank"} {
			if !strings.Contains(with, secret) {
				t.Errorf("%s: %q is not even in the full export", f, secret)
			}
			if strings.Contains(without, secret) {
				t.Errorf("%s: %q is in the export of pseudonyms", f, secret)
			}
		}
		if !strings.Contains(without, acme.pseudo.String()) {
			t.Errorf("%s: there are no pseudonyms", f)
		}
	}
}

// TestOCSF holds each event against what the schema's documentation requires, which testdata/ocsf-1.5.0.json says.
func TestOCSF(t *testing.T) {
	type rule struct {
		Required   []string         `json:"required"`
		AtLeastOne []string         `json:"at_least_one"`
		Enum       map[string][]int `json:"enum"`
		Objects    map[string]string
	}
	var schema struct {
		Classes map[string]rule `json:"classes"`
		Objects map[string]rule `json:"objects"`
	}
	if err := json.Unmarshal(must(os.ReadFile("testdata/ocsf-1.5.0.json")), &schema); err != nil {
		t.Fatal(err)
	}
	var check func(path string, o map[string]any, r rule) []string
	check = func(path string, o map[string]any, r rule) (wrong []string) {
		for _, name := range r.Required {
			if o[name] == nil {
				wrong = append(wrong, path+name+" is missing")
			}
		}
		some := len(r.AtLeastOne) == 0
		for _, name := range r.AtLeastOne {
			some = some || o[name] != nil && o[name] != ""
		}
		if !some {
			wrong = append(wrong, fmt.Sprintf("%s has none of %v", path, r.AtLeastOne))
		}
		for name, allowed := range r.Enum {
			if v, there := o[name].(float64); there {
				ok := false
				for _, a := range allowed {
					ok = ok || float64(a) == v
				}
				if !ok {
					wrong = append(wrong, fmt.Sprintf("%s%s is %v, not one of %v", path, name, v, allowed))
				}
			}
		}
		for name, kind := range r.Objects {
			of, known := schema.Objects[kind]
			if !known {
				t.Fatalf("the schema has no object %s", kind)
			}
			switch v := o[name].(type) {
			case map[string]any:
				wrong = append(wrong, check(path+name+".", v, of)...)
			case []any:
				for _, x := range v {
					wrong = append(wrong, check(path+name+"[].", x.(map[string]any), of)...)
				}
			}
		}
		return wrong
	}
	l, _, _, _ := everything(t)
	text := l.exported(t, OCSF, false)
	l.file("checkpoint", []byte("no note"))
	var b bytes.Buffer
	if err := l.exporter(OCSF, Pipe{&b}).Run(t.Context()); !errors.Is(err, audit.ErrDamaged) {
		t.Fatalf("a checkpoint that is none: %v", err)
	}
	events := objects(t, append(text, b.Bytes()...))
	seen, uids := map[string]bool{}, map[string]bool{}
	for _, e := range events {
		class := fmt.Sprint(e["class_uid"])
		r, known := schema.Classes[class]
		if !known {
			t.Fatalf("class %s is not in the schema: %v", class, e)
		}
		for _, w := range check("", e, schema.Classes["*"]) {
			t.Errorf("class %s: %s in %v", class, w, e)
		}
		for _, w := range check("", e, r) {
			t.Errorf("class %s: %s in %v", class, w, e)
		}
		if e["type_uid"] != 100*e["class_uid"].(float64)+e["activity_id"].(float64) {
			t.Errorf("type_uid %v of class %s", e["type_uid"], class)
		}
		m := e["metadata"].(map[string]any)
		if m["version"] != "1.5.0" || uids[m["uid"].(string)] {
			t.Errorf("metadata %v: another version, or a uid that another event has", m)
		}
		uids[m["uid"].(string)] = true
		seen[fmt.Sprintf("%s:%v:%v:%v", e["unmapped"].(map[string]any)["kind"], e["class_uid"], e["activity_id"], e["status"])] = true
		if m["sequence"] == nil && class != "2004" {
			t.Errorf("an event without its entry's index: %v", e)
		}
	}
	for _, want := range []string{
		"genesis:6002:1:Success", "start:6002:3:Success", "stop:6002:4:Success", "identity:3001:1:Success", "manifest:6005:2:Success", "import:3004:1:Unknown", "grant:3005:1:Success",
		"revocation:3005:2:Success", "destroyed:3004:4:Success", "sealing:3004:4:Success", "session:3002:1:Success", "use:6005:1:Success", "failed:6005:1:Failure", "failed:3004:1:Failure",
		"failed:3004:4:Failure", "failed:6008:1:Failure", "refusal:6005:1:Failure", "refusal:3004:1:Failure", "refusals:6005:1:Failure", "refusals:3004:1:Failure", "refusals:3002:1:Failure",
		"access:6005:4:Success", "erasure:6005:7:Success", "novelty:0:99:Success", "fault:2004:1:New",
	} {
		if !seen[want] {
			t.Errorf("no event is %s; there are %v", want, seen)
		}
	}
	// A revocation of three grants is three events.
	n := 0
	for _, e := range events {
		u := e["unmapped"].(map[string]any)
		if fields, ok := u["fields"].([]any); ok && u["kind"] == "revocation" && len(fields) == 3 {
			n++
		}
	}
	if n != 3 {
		t.Errorf("a revocation of three grants is %d events", n)
	}
}

// TestCEF reads the lines back as a receiver would.
func TestCEF(t *testing.T) {
	l, _, acme, _ := everything(t)
	lines := bytes.Split(bytes.TrimSpace(l.exported(t, CEF, false)), []byte("\n"))
	if len(lines) != len(l.leaves) {
		t.Fatalf("%d lines of %d entries: a line's end was not escaped", len(lines), len(l.leaves))
	}
	header := regexp.MustCompile(`^CEF:0((?:\|(?:[^|\\]|\\[\\|])*){6})\|(.*)$`)
	pair := regexp.MustCompile(`(?:^| )([a-zA-Z0-9]+)=((?:[^=\\]|\\[\\=nr])*?)(?:$| [a-zA-Z0-9]+=)`)
	for i, line := range lines {
		m := header.FindSubmatch(line)
		if m == nil {
			t.Fatalf("line %d is no CEF: %s", i, line)
		}
		ext, keys := string(m[2]), map[string]string{}
		for ext != "" {
			p := pair.FindStringSubmatchIndex(ext)
			if p == nil {
				t.Fatalf("line %d: nothing to read in %q", i, ext)
			}
			key := ext[p[2]:p[3]]
			if _, twice := keys[key]; twice {
				t.Errorf("line %d has %s twice", i, key)
			}
			keys[key] = strings.NewReplacer(`\\`, `\`, `\=`, `=`, `\n`, "\n", `\r`, "\r").Replace(ext[p[4]:p[5]])
			ext = ext[p[5]:]
			ext = strings.TrimPrefix(ext, " ")
		}
		if keys["externalId"] != fmt.Sprintf("vault.example/log/%d", i) || keys["cn1"] != fmt.Sprint(i) || keys["rt"] == "" {
			t.Errorf("line %d has %v", i, keys)
		}
		if keys["suid"] == acme.id.String() && keys["suser"] != "ACME | \"a=b\" \\ Ltd" {
			t.Errorf("line %d: the name came back as %q", i, keys["suser"])
		}
	}
	for in, want := range map[string]string{`a|b\c`: `a\|b\\c`, "a\r\nb\nc": "a b c", "a=b": "a=b"} {
		if got := cefHead(in); got != want {
			t.Errorf("%q in a header is %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{`a|b\c`: `a|b\\c`, "a\r\nb\nc\rd": `a\nb\nc\rd`, "a=b": `a\=b`} {
		if got := cefValue(in); got != want {
			t.Errorf("%q as a value is %q, want %q", in, got, want)
		}
	}
}

// grow adds reads until the log has n entries.
func (l *testLog) grow(n int, owner, reader *person, grant policies.DocumentID) {
	for len(l.leaves) < n {
		l.use(owner, reader, grant, "phone.mobile", nil)
	}
}

// indexes are those of the entries in a file, each line whole.
func indexes(t *testing.T, name string) (out []uint64) {
	t.Helper()
	for _, o := range objects(t, must(os.ReadFile(name))) {
		if o["kind"] != "fault" {
			out = append(out, uint64(o["index"].(float64)))
		}
	}
	return out
}

func inOrder(t *testing.T, name string, n int) {
	t.Helper()
	got := indexes(t, name)
	for i, index := range got {
		if index != uint64(i) {
			t.Fatalf("line %d is of entry %d", i, index)
		}
	}
	if len(got) != n {
		t.Fatalf("%d events of %d entries", len(got), n)
	}
}

// TestCursor: an export goes on where the last one ended, whatever lies beyond the cursor in the file.
func TestCursor(t *testing.T) {
	l, owner, acme, _, grants := innocent(t)
	l.grow(900, owner, acme, grants[0])
	out := filepath.Join(t.TempDir(), "events")
	run := func(size int) error {
		l.publish(size)
		x := l.exporter(JSONL, File(out))
		x.Cursor = out + ".cursor"
		return x.Run(t.Context())
	}
	for _, size := range []int{1, 2, 2, 256, 257, 600, 900, 900} {
		if err := run(size); err != nil {
			t.Fatal(err)
		}
		inOrder(t, out, size)
	}
	c := must(readCursor(out + ".cursor"))
	if c.Next != 900 || c.Size != 900 || c.Root.IsZero() || c.Output != must(os.Stat(out)).Size() {
		t.Errorf("the cursor is %+v", c)
	}
	// What a crash leaves: lines that are whole, torn, or were never written, with any cursor that there was before.
	whole := must(os.ReadFile(out))
	old := *c
	for _, at := range []int{0, 1, 300, 899} {
		old.Next, old.Output = uint64(at), int64(len(bytes.Join(bytes.SplitAfter(whole, []byte("\n"))[:at], nil)))
		for _, length := range []int64{old.Output, old.Output + 1, old.Output + 400, int64(len(whole))} {
			torn := []string{"", "\x00\x00\x00"}
			if length == old.Output {
				torn = append(torn, strings.Repeat("x", 2_000_000))
			}
			for _, torn := range torn {
				if err := errors.Join(old.write(out+".cursor"), os.WriteFile(out, append(append([]byte{}, whole[:min(length, int64(len(whole)))]...), torn...), 0o600)); err != nil {
					t.Fatal(err)
				}
				if err := run(900); err != nil {
					t.Fatal(err)
				}
				if got := must(os.ReadFile(out)); !bytes.Equal(got, whole) {
					t.Fatalf("from entry %d with %d bytes more: the file is another", at, length-old.Output)
				}
			}
		}
	}
	// A file that was moved away begins anew; one that was cut does not.
	if err := os.Rename(out, out+".1"); err != nil {
		t.Fatal(err)
	}
	l.grow(901, owner, acme, grants[0])
	if err := run(901); err != nil {
		t.Fatal(err)
	}
	if got := indexes(t, out); len(got) != 1 || got[0] != 900 {
		t.Errorf("after the file was moved away it has %v", got)
	}
	if err := os.Truncate(out, 10); err != nil {
		t.Fatal(err)
	}
	l.grow(902, owner, acme, grants[0])
	if err := run(902); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("a file that was cut: %v", err)
	}
}

func TestCursorRefused(t *testing.T) {
	l, _, _, _, _ := innocent(t)
	l.publish(len(l.leaves))
	out := filepath.Join(t.TempDir(), "events")
	x := l.exporter(JSONL, File(out))
	x.Cursor = out + ".cursor"
	if err := x.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, bend := range map[string]func(*Exporter){
		"another format": func(x *Exporter) { x.Format = CEF },
		"pseudonyms":     func(x *Exporter) { x.Pseudonyms = true },
		"another vault": func(x *Exporter) {
			d := *document
			d.Vault = policies.VaultID{8}
			x.Document = &d
		},
	} {
		y := l.exporter(JSONL, File(out))
		y.Cursor = x.Cursor
		bend(y)
		if err := y.Run(t.Context()); !errors.Is(err, ErrCursor) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unlock := must(lock(x.Cursor))
	if err := x.Run(t.Context()); !errors.Is(err, ErrCursor) {
		t.Errorf("two at once: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{}", `{"format":2}`, `{"format":1,"output":-1}`, `{"format":1,"size":4}`, `{"format":1,"more":1}`, `{"format":1} {}`} {
		if err := os.WriteFile(x.Cursor, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := x.Run(t.Context()); !errors.Is(err, ErrCursor) {
			t.Errorf("the cursor %q: %v", text, err)
		}
	}
}

// TestKilled kills exports at random moments, starts them again, and lets the log grow meanwhile: every entry is in the file once, in order.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("SALLYPORT_EXPORT_LOG"); dir != "" { // the child
		x := &Exporter{Source: audit.Folder(dir), Document: document, Format: JSONL, Output: File(os.Getenv("SALLYPORT_EXPORT_OUT")), Cursor: os.Getenv("SALLYPORT_EXPORT_OUT") + ".cursor"}
		if err := x.Follow(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
		return
	}
	l, owner, acme, _, grants := innocent(t)
	l.grow(500, owner, acme, grants[0])
	l.publish(500)
	out := filepath.Join(t.TempDir(), "events")
	r := rand.New(rand.NewPCG(1, 2))
	killed, grew := 0, 0
	for len(l.leaves) < 5000 {
		var said bytes.Buffer
		c := exec.Command(must(os.Executable()), "-test.run=^TestKilled$")
		c.Env = append(os.Environ(), "SALLYPORT_EXPORT_LOG="+l.dir, "SALLYPORT_EXPORT_OUT="+out)
		c.Stdout, c.Stderr = &said, &said
		l.grow(len(l.leaves)+r.IntN(1000)+1, owner, acme, grants[0])
		l.publish(len(l.leaves))
		before := sizeOf(out)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); sizeOf(out) <= before && time.Now().Before(deadline); { // on a busy machine it takes its time to begin
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the export ended by itself: %v\n%s", err, said.String())
		}
		killed++
		if c, err := readCursor(out + ".cursor"); err == nil && c.Next > 0 && c.Next < uint64(len(l.leaves)) {
			grew++
		}
	}
	x := l.exporter(JSONL, File(out))
	x.Cursor = out + ".cursor"
	if err := x.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	inOrder(t, out, len(l.leaves))
	if grew == 0 {
		t.Error("no export was killed in the middle")
	}
	t.Logf("%d exports were killed, %d of them with entries to go", killed, grew)
}

func sizeOf(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// TestFaults: what is wrong with a log is an event, once, and the entries before it went out.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name string
		code FaultCode
		size int // of the events before
		do   func(l *testLog, forked *testLog)
	}{
		{"a checkpoint that is not signed", FaultSignature, 600, func(l, _ *testLog) { l.file("checkpoint", append(l.checkpoint(700), "x"...)) }},
		{"a bundle is gone", FaultGap, 768, func(l, _ *testLog) {
			l.publish(1000)
			os.Remove(l.path(audit.EntriesPath(3, 232)))
		}},
		{"a hash tile is gone", FaultGap, 600, func(l, _ *testLog) {
			l.publish(1000)
			os.Remove(l.path(audit.TilePath(0, 3, 232)))
		}},
		{"the log is shorter than before", FaultGap, 600, func(l, _ *testLog) { l.publish(500) }},
		{"the checkpoint is gone", FaultGap, 600, func(l, _ *testLog) { os.Remove(l.path("checkpoint")) }},
		{"another log of the same length", FaultFork, 600, func(_, forked *testLog) { forked.publish(600) }},
		{"another log that is longer", FaultFork, 600, func(_, forked *testLog) { forked.publish(1000) }},
		{"an entry was changed", FaultDamaged, 800, func(l, _ *testLog) {
			l.leaves[800][len(l.leaves[800])-1] ^= 1
			l.publish(1000)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, owner, acme, _, grants := innocent(t)
			l.grow(1000, owner, acme, grants[0])
			forked, owner, acme, _, grants := innocent(t)
			forked.grow(1000, owner, acme, grants[0])
			forked.dir = l.dir
			l.publish(600)
			out := filepath.Join(t.TempDir(), "events")
			run := func() error {
				x := l.exporter(JSONL, File(out))
				x.Cursor = out + ".cursor"
				return x.Run(t.Context())
			}
			if err := run(); err != nil {
				t.Fatal(err)
			}
			c.do(l, forked)
			for range 3 {
				if err := run(); !errors.Is(err, audit.ErrDamaged) {
					t.Fatalf("got %v", err)
				}
			}
			inOrder(t, out, c.size)
			var faults []map[string]any
			for _, o := range objects(t, must(os.ReadFile(out))) {
				if o["kind"] == "fault" {
					faults = append(faults, o)
				}
			}
			if len(faults) != 1 {
				t.Fatalf("%d fault events, want one: %v", len(faults), faults)
			}
			if f := faults[0]["fault"].(map[string]any); f["code"] != string(c.code) || f["what"] == "" || faults[0]["severity"] != 5.0 {
				t.Errorf("the fault is %v, want code %s", faults[0], c.code)
			}
			// Mended, it goes on.
			if c.code == FaultGap {
				l.publish(1000)
				if err := run(); err != nil {
					t.Fatal(err)
				}
				inOrder(t, out, 1000)
			}
		})
	}
	// A log that was never there is no fault.
	l := newLog(t)
	var b bytes.Buffer
	if err := l.exporter(JSONL, Pipe{&b}).Run(t.Context()); err == nil || errors.Is(err, audit.ErrDamaged) || b.Len() > 0 {
		t.Errorf("no log: %v, %q", err, b.String())
	}
}

// TestFrom: an export that begins in the middle knows what was before.
func TestFrom(t *testing.T) {
	l, owner, _, bank, grants := innocent(t)
	l.revoke(owner, policies.RevokedItem{Grant: grants[1], Field: "iban", Author: owner.author()})
	at := l.use(owner, bank, grants[1], "iban", nil)
	l.publish(len(l.leaves))
	var b bytes.Buffer
	x := l.exporter(JSONL, Pipe{&b})
	x.From = at
	if err := x.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := objects(t, b.Bytes())
	if len(events) != 1 || events[0]["revoked_before"] != true || events[0]["revoked_by"] != float64(at-1) || events[0]["reader_name"] != "Bank" {
		t.Errorf("got %v", events)
	}
}

// TestEndedWithAnAccount: what ended with the account of its reader is over from the closing on, and the entry that says that its keys are gone says why.
func TestEndedWithAnAccount(t *testing.T) {
	l, owner, _, bank, grants := innocent(t)
	closing := l.add(evidence.Entry{Kind: evidence.EntryClosure, Owner: bank.pseudo, Outcome: policies.CodeAccepted}, evidence.Details{Owner: policies.OwnerID(bank.id)}, nil)
	at := l.add(evidence.Entry{Kind: evidence.EntryDestroyed, Owner: owner.pseudo, Outcome: policies.CodeAccepted}, evidence.Details{
		Owner: owner.owner(), Reader: bank.reader(), Index: closing, Items: []policies.RevokedItem{{Grant: grants[1], Field: "iban", Author: owner.author()}},
	}, nil)
	l.use(owner, bank, grants[1], "iban", nil)
	l.publish(len(l.leaves))
	var b bytes.Buffer
	x := l.exporter(JSONL, Pipe{&b})
	x.From = at
	if err := x.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	events := objects(t, b.Bytes())
	if len(events) != 2 || events[1]["revoked_before"] != true || events[1]["revoked_by"] != float64(closing) || !strings.Contains(events[0]["message"].(string), "closed their account") {
		t.Errorf("got %v", events)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add([]byte(`{"format":1,"log":"l","vault":"` + policies.VaultID{1}.String() + `","events":"jsonl","next":1,"size":1,"root":"` + policies.Hash{1}.String() + `","checkpoint":"c","output":3}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseCursor(text)
		if err != nil {
			return
		}
		again, err := parseCursor(must(json.Marshal(c)))
		if err != nil || *again != *c {
			t.Errorf("%+v came back as %+v, %v", c, again, err)
		}
	})
}

// FuzzCEF: whatever the words in an event are, it is one line, and its parts are where they belong.
func FuzzCEF(f *testing.F) {
	f.Add("a|b", "c=d\n")
	f.Fuzz(func(t *testing.T, message, name string) {
		e := &Event{Kind: evidence.EntryUse, Severity: low, Message: message, Name: name, Purpose: name}
		line := string(cef(e))
		plain := strings.NewReplacer(`\\`, "", `\|`, "", `\=`, "").Replace(line)
		if strings.ContainsAny(line, "\r\n") || strings.Count(strings.SplitN(plain, "|rt=", 2)[0], "|") != 6 {
			t.Errorf("%q", line)
		}
		if got, want := strings.Count(plain[strings.LastIndex(plain, "|rt=")+1:], "="), 5; name == "" && message == "" && got > want {
			t.Errorf("%q has %d keys", line, got)
		}
	})
}

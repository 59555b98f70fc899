package reconcile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func sample(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func ofClass(t *Token) map[Class]int {
	n := map[Class]int{}
	for _, o := range t.ops {
		n[o.class]++
	}
	return n
}

// readers are the formats, as a command reads them.
var readers = map[string]func([]byte) (*Token, error){
	"spy":      func(b []byte) (*Token, error) { return ReadSpy(bytes.NewReader(b), time.UTC) },
	"luna":     func(b []byte) (*Token, error) { return ReadLuna(bytes.NewReader(b), DayMonthYear, time.UTC) },
	"yubihsm2": func(b []byte) (*Token, error) { return ReadYubiHSM2(bytes.NewReader(b)) },
	"nshield":  func(b []byte) (*Token, error) { return ReadNShield(bytes.NewReader(b)) },
}

func TestSamples(t *testing.T) {
	for _, row := range []struct {
		file, format                 string
		derive, unwrap, sign, failed int
		first                        time.Time
	}{
		{"yubihsm2.txt", "yubihsm2", 4, 1, 1, 1, time.Time{}},
		{"yubihsm2.hex", "yubihsm2", 4, 1, 1, 1, time.Time{}},
		{"luna.log", "luna", 4, 1, 1, 1, time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)},
		{"luna-lines.log", "luna", 1, 0, 0, 0, time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)},
		{"nshield.log", "nshield", 2, 0, 1, 1, time.UnixMilli(1795867200000).UTC()},
	} {
		token, err := readers[row.format](sample(t, row.file))
		if err != nil {
			t.Errorf("%s: %v", row.file, err)
			continue
		}
		got := ofClass(token)
		if got[Derive] != row.derive || got[Unwrap] != row.unwrap || got[Sign] != row.sign || int(token.failed[Derive]) != row.failed || !token.first.Equal(row.first) || len(token.Notes()) == 0 {
			t.Errorf("%s: %v, failed %v, from %s", row.file, got, token.failed, token.first)
		}
	}
	raw, err := decode(strings.TrimSpace(string(sample(t, "yubihsm2.hex")))[8:])
	if err != nil {
		t.Fatal(err)
	}
	if token, err := ReadYubiHSM2(bytes.NewReader(raw)); err != nil || ofClass(token)[Derive] != 4 {
		t.Errorf("as the device gives it: %v", err)
	}
}

// Somebody who can write the file changes it: an entry taken out, changed, put in, moved.
func TestYubiHSM2Chain(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(string(sample(t, "yubihsm2.hex")))[8:], "")
	text := strings.Join(lines, "")
	entry := func(i int) string { return text[i*64 : i*64+64] }
	var all []string
	for i := range len(text) / 64 {
		all = append(all, entry(i))
	}
	join := func(parts ...[]string) []byte {
		s := "00000000"
		for _, p := range parts {
			s += strings.Join(p, "")
		}
		return []byte(s + "\n")
	}
	if _, err := ReadYubiHSM2(bytes.NewReader(join(all))); err != nil {
		t.Fatal(err)
	}
	changed := all[8][:4] + "48" + all[8][6:]
	for what, record := range map[string][]byte{
		"a derive taken out":                 join(all[:8], all[9:]),
		"a derive taken out, numbers closed": join(all[:8], renumber(all[9:], -1)),
		"a derive changed into another":      join(all[:8], []string{changed}, all[9:]),
		"a result changed":                   join(all[:8], []string{all[8][:22] + "7f" + all[8][24:]}, all[9:]),
		"an entry put in":                    join(all[:8], []string{all[7]}, []string{all[7][:8] + "1" + all[7][9:]}, all[8:]),
		"two entries exchanged":              join(all[:8], []string{all[9], all[8]}, all[10:]),
	} {
		var bad *FormatError
		if _, err := ReadYubiHSM2(bytes.NewReader(record)); !errors.As(err, &bad) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func renumber(entries []string, by int) (out []string) {
	for _, e := range entries {
		b, _ := decode(e)
		b[1] += byte(by)
		out = append(out, hexOf(b))
	}
	return out
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

// What a format does not allow is refused, with the line.
func TestStrict(t *testing.T) {
	luna, nshield, yubi := string(sample(t, "luna.log")), string(sample(t, "nshield.log")), string(sample(t, "yubihsm2.txt"))
	w := newWorld(t)
	w.life(nil)
	spy := w.trace.String()
	lines := func(text string, f func([]string) []string) string {
		return strings.Join(f(strings.Split(text, "\n")), "\n")
	}
	for _, row := range []struct{ format, what, text string }{
		{"spy", "nothing", ""},
		{"spy", "something else", "hello\n"},
		{"spy", "a trace that begins in the middle", spy[strings.Index(spy, "\n9: "):]},
		{"spy", "calls that are missing", strings.Replace(spy, "\n40: ", "\n90: ", 1)},
		{"spy", "a time that is none", strings.Replace(spy, "2026-11-28 12:00", "2026-13-28 12:00", 1)},
		{"spy", "an argument outside of a call", "[in] hSession = 0x1\n" + spy},
		{"spy", "a long line", spy + strings.Repeat("x", 70000)},
		{"luna", "nothing", ""},
		{"luna", "a record that is missing", lines(luna, func(l []string) []string { return append(l[:3:3], l[4:]...) })},
		{"luna", "records exchanged", lines(luna, func(l []string) []string { l[3], l[4] = l[4], l[3]; return l })},
		{"luna", "a record of another HSM", strings.Replace(luna, "44,28/11/26 12:00:01,S/N 1234567", "44,28/11/26 12:00:01,S/N 7654321", 1)},
		{"luna", "a record without an HMAC", lines(luna, func(l []string) []string { l[3] = strings.TrimSpace(l[3][:strings.LastIndex(l[3], ",")]); return l })},
		{"luna", "a clock that was set back", strings.Replace(luna, "47,28/11/26 12:00:02", "47,28/11/26 11:00:02", 1)},
		{"luna", "a month 28", strings.ReplaceAll(luna, "28/11/26", "11/28/26")},
		{"luna", "a record in another form", strings.Replace(luna, " returned ", " gave ", 1)},
		{"yubihsm2", "nothing", ""},
		{"yubihsm2", "only what is around entries", "0 unlogged boots found\n0 unlogged authentications found\nNo logs to extract\n"},
		{"yubihsm2", "a line in another form", strings.Replace(yubi, " -- tick", " - tick", 1)},
		{"yubihsm2", "a number that is too large", strings.Replace(yubi, "item:     3", "item: 65539", 1)},
		{"yubihsm2", "hex of another length", strings.TrimSpace(string(sample(t, "yubihsm2.hex"))) + "00\n"},
		{"nshield", "nothing", ""},
		{"nshield", "a line in no form", nshield + "hello\n"},
		{"nshield", "another vendor", strings.Replace(nshield, "nCipher Security", "Acme", 1)},
		{"nshield", "another version", strings.Replace(nshield, "CEF:0|", "CEF:1|", 1)},
		{"nshield", "a header that ends", "CEF:0|nCipher|x|y|z\n"},
		{"nshield", "a time in no form", strings.Replace(nshield, "rt=1", "rt=x", 1)},
		{"nshield", "a key that comes twice", strings.Replace(nshield, "outcome=OK", "outcome=OK outcome=Failed", 1)},
		{"nshield", "one message without a time", strings.Replace(nshield, "rt=", "xt=", 1)},
	} {
		var bad *FormatError
		if _, err := readers[row.format]([]byte(row.text)); !errors.As(err, &bad) || bad.Line == 0 || bad.Format != row.format {
			t.Errorf("%s, %s: %v", row.format, row.what, err)
		}
	}
	if _, err := ReadLuna(strings.NewReader(luna), "ydm", time.UTC); err == nil {
		t.Error("an order of dates that there is not")
	}
}

// A trace holds PINs and derived values. No report and no error repeats them.
func TestSpyKeepsSecrets(t *testing.T) {
	w := newWorld(t)
	w.life(func() {
		w.derive(name(resident, "phone"), false)
		w.call("C_InitPIN", "", "[in] hSession = 0x5", "[in] pPin[ulPinLen] "+dump([]byte("31337-pin")))
	})
	token, err := ReadSpy(strings.NewReader(w.trace.String()), time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range token.ops {
		if bytes.Contains(o.message, []byte("31337")) {
			t.Error("an operation holds a PIN")
		}
	}
	r := w.reconcile()
	for _, f := range r.Findings {
		if text := f.Reason + f.Key + f.Place; strings.Contains(text, "31337") || strings.Contains(strings.ToLower(text), "5e5e5e5e") {
			t.Errorf("%+v", f)
		}
	}
	l := strings.Split(w.trace.String(), "\n")
	for i := 0; i < len(l); i += len(l)/20 + 1 {
		broken := append([]string{"[in] pPin[ulPinLen] 31337-pin ]["}, l[i:]...)
		if _, err := ReadSpy(strings.NewReader(strings.Join(broken, "\n")), time.UTC); err == nil || strings.Contains(err.Error(), "31337") {
			t.Fatal(err)
		}
	}
}

// Processes share the file: two whose numbers are the same are told apart where a newer spy names them.
func TestSpyProcesses(t *testing.T) {
	one, two := newWorld(t), newWorld(t)
	one.life(nil)
	two.life(nil)
	pid := func(text, id string) []string {
		return strings.Split(strings.ReplaceAll(text, "\n2026", "\nP:"+id+"; T:0x1 2026"), "\nReturned:")
	}
	var both strings.Builder
	a, b := pid(one.trace.String(), "7"), pid(two.trace.String(), "8")
	for i := range a {
		if i == 0 {
			both.WriteString(a[0] + "\nReturned:" + " 0 CKR_OK\n" + b[0] + "\nReturned:")
			continue
		}
		x, rest, _ := strings.Cut(a[i], "\n")
		y, more, _ := strings.Cut(b[i], "\n")
		_ = y
		both.WriteString(x + "\n" + rest)
		if i+1 < len(a) {
			both.WriteString("\nReturned: 0 CKR_OK\n" + more + "\nReturned:")
		}
	}
	text := strings.ReplaceAll(strings.ReplaceAll(both.String(), "Returned: 0", "Returned:  0"), "Returned:  0 CKR_OK\n\nReturned", "Returned")
	if token, err := ReadSpy(strings.NewReader(text), time.UTC); err != nil {
		t.Error(err)
	} else if token.detail != named {
		t.Error("processes with numbers are not told apart")
	}
}

// Without process numbers, two processes that are at the same number cannot be told apart: the reader says so and compares by time and number.
func TestSpyBlurred(t *testing.T) {
	head := "\n0: C_Initialize\n2026-11-28 12:00:00.000\nReturned:  0 CKR_OK\n"
	token, err := ReadSpy(strings.NewReader(head+head+strings.Replace(head, "0:", "1:", 1)), time.UTC)
	if err != nil || token.detail != canaries || !strings.Contains(strings.Join(token.Notes(), " "), "apart") {
		t.Errorf("%v %+v", err, token)
	}
}

func fuzz(f *testing.F, format string, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		token, err := readers[format](data)
		if err != nil {
			if bad := new(FormatError); !errors.As(err, &bad) && !strings.Contains(err.Error(), "reading the") {
				t.Errorf("an error in no form: %v", err)
			}
			return
		}
		if token.records == 0 || len(token.ops) > token.records {
			t.Errorf("%d operations in %d records", len(token.ops), token.records)
		}
		for _, o := range token.ops {
			if o.class == "" || o.place == "" {
				t.Errorf("%+v", o)
			}
		}
	})
}

func FuzzSpy(f *testing.F) {
	w := newWorld(f)
	w.life(nil)
	fuzz(f, "spy", w.trace.String()[:2000], "\n0: C_Initialize\n2026-11-28 12:00:00.000\nReturned:  0 CKR_OK\n", "\n0: C_Sign\nP:1; T:0x1 2026-11-28 12:00:00.000\n[in] pData[ulDataLen] = [out] hKey = 0x1\n0011223344556677 / 1\n",
		"\n0: C_Sign\n\n1: C_DeriveKey\nP:1; T:0x1 2026-11-28 12:00:00.000\nP:1; T:0x2 2026-11-28 12:00:00.000\n[in] pData[ulDataLen] [out] hKey = 0x1\nReturned:  0 CKR_OK\n0011223344556677 / 1Returned:  0 CKR_OK\n")
}

func FuzzLuna(f *testing.F) {
	fuzz(f, "luna", string(sample(f, "luna.log")), string(sample(f, "luna-lines.log")))
}

func FuzzYubiHSM2(f *testing.F) {
	fuzz(f, "yubihsm2", string(sample(f, "yubihsm2.txt")), string(sample(f, "yubihsm2.hex")))
}

func FuzzNShield(f *testing.F) { fuzz(f, "nshield", string(sample(f, "nshield.log"))) }

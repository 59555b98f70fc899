package evidence

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/note"

	"github.com/sallyport/sallyport/policies"
)

func hostKey(name string, seed byte) *CosignerKey {
	return must(NewCosignerKey(name, &[32]byte{31: seed}))
}

// line is a signature line of a note, by hand.
func line(c Cosigner, at uint64, signature []byte) string {
	raw := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, c.keyHash()), at)
	return "\u2014 " + c.Name + " " + base64.StdEncoding.EncodeToString(append(raw, signature...)) + "\n"
}

// edWitness cosigns with Ed25519, as the specification's text says it.
func edWitness(name string, seed byte) (Cosigner, func(text string, at uint64) string) {
	private := ed25519.NewKeyFromSeed(filled(32, seed))
	c := Cosigner{name, CosignatureEd25519, private.Public().(ed25519.PublicKey)}
	return c, func(text string, at uint64) string {
		body := text[:strings.Index(text, "\n\n")+1]
		return line(c, at, ed25519.Sign(private, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, body)))
	}
}

// publishedFixture is a log of seven entries with its host and two witnesses, one of each type.
type publishedFixture struct {
	log      *testLog
	vault    *policies.VaultDocument
	host     *CosignerKey
	w1       *CosignerKey
	w2       Cosigner
	token    string // the token's checkpoint
	hostLine string
	w1Line   string
	w2Line   string
}

func newPublishedFixture() publishedFixture {
	l, v, _ := receiptFixture()
	f := publishedFixture{log: l, vault: v, host: hostKey(l.name+"/host", 1), w1: hostKey("witness.example/w1", 2), token: l.checkpoint(7)}
	v.LogHostKey = policies.LogKey{Name: l.name + "/host", Algorithm: "ML-DSA-44", PublicKey: f.host.Cosigner().PublicKey}
	c := must(OpenCheckpoint(f.token, v.LogKey))
	f.hostLine = must(f.host.Cosign(l.name, c, testTime))
	f.w1Line = must(f.w1.Cosign(l.name, c, testTime.Add(time.Second)))
	w2, sign := edWitness("witness.example/w2", 3)
	f.w2, f.w2Line = w2, sign(f.token, uint64(testTime.Unix())+2)
	return f
}

func (f *publishedFixture) witnesses(need int) Witnesses {
	return Witnesses{need, []Cosigner{f.w1.Cosigner(), f.w2}}
}

func TestOpenPublished(t *testing.T) {
	f := newPublishedFixture()
	p, err := OpenPublished(f.token+f.hostLine+f.w2Line+f.w1Line, f.vault, f.witnesses(2))
	if err != nil || p.Checkpoint != (Checkpoint{7, policies.Hash(f.log.root(7))}) || !p.Host.Equal(testTime) || len(p.Witnesses) != 2 {
		t.Fatalf("got %+v, %v", p, err)
	}
	if w := p.Witnesses[0]; w.By.Name != f.w2.Name || !w.At.Equal(testTime.Add(2*time.Second)) {
		t.Errorf("the first line of a witness reads as %+v", w)
	}
	// Signing is hedged: the same statement twice is two signatures, and both hold.
	if again := must(f.host.Cosign(f.log.name, p.Checkpoint, testTime)); again == f.hostLine {
		t.Error("two signatures are one")
	}

	c7 := p.Checkpoint
	c6 := must(OpenCheckpoint(f.log.checkpoint(6), f.vault.LogKey))
	name, stranger := f.log.name, newTestLog(2)
	zero := must(f.host.Cosign(name, c7, testTime))
	zeroRaw := must(base64.StdEncoding.DecodeString(strings.TrimSpace(zero[strings.LastIndex(zero, " ")+1:])))
	for _, c := range []struct {
		name, text string
		witnesses  Witnesses
		want       error
	}{
		{"without witnesses", f.token + f.hostLine, Witnesses{}, nil},
		{"one of two", f.token + f.hostLine + f.w1Line, f.witnesses(1), nil},
		{"the other of two", f.token + f.hostLine + f.w2Line, f.witnesses(1), nil},
		{"a line of a stranger besides", f.token + line(hostKey("stranger.example", 9).Cosigner(), 1, filled(2420, 1)) + f.hostLine, Witnesses{}, nil},
		{"the host's line first", strings.Replace(f.token, "\n\n", "\n\n"+f.hostLine, 1), Witnesses{}, nil},

		{"the token's line alone", f.token, Witnesses{}, policies.ErrSignature},
		{"the host's line alone", f.token[:strings.Index(f.token, "\n\n")+2] + f.hostLine, Witnesses{}, policies.ErrSignature},
		{"witnesses instead of the host", f.token + f.w1Line + f.w2Line, f.witnesses(2), policies.ErrSignature},
		{"one of two, two needed", f.token + f.hostLine + f.w1Line, f.witnesses(2), policies.ErrSignature},
		{"one twice, two needed", f.token + f.hostLine + f.w1Line + must(f.w1.Cosign(name, c7, testTime)), f.witnesses(2), policies.ErrSignature},
		{"the host's line of another size", f.token + must(f.host.Cosign(name, c6, testTime)), Witnesses{}, policies.ErrSignature},
		{"the host's line of another log", f.token + must(f.host.Cosign("other.example", c7, testTime)), Witnesses{}, policies.ErrSignature},
		{"the host's line by another key", f.token + must(hostKey(name+"/host", 7).Cosign(name, c7, testTime)), Witnesses{}, policies.ErrSignature},
		{"a witness's line under the host's name", f.token + strings.Replace(f.w1Line, f.w1.Cosigner().Name, name+"/host", 1), Witnesses{}, policies.ErrSignature},
		{"the host's line with another time", f.token + line(f.host.Cosigner(), 1, zeroRaw[12:]), Witnesses{}, policies.ErrSignature},
		{"the host's line without a time", f.token + line(f.host.Cosigner(), 0, zeroRaw[12:]), Witnesses{}, policies.ErrSignature},
		{"a witness's line of another tree", f.token + f.hostLine + must(f.w1.Cosign(name, c6, testTime)), f.witnesses(0), policies.ErrSignature},
		{"another token's line", stranger.sign(c7.Text(name)) + f.hostLine, Witnesses{}, policies.ErrSignature},
		{"well signed, four lines", f.log.sign(c7.Text(name)+"more\n") + f.hostLine, Witnesses{}, policies.ErrSignature},

		{"three of two witnesses", f.token + f.hostLine, f.witnesses(3), policies.ErrMalformed},
		{"fewer than none", f.token + f.hostLine, f.witnesses(-1), policies.ErrMalformed},
		{"one witness twice", f.token + f.hostLine + f.w1Line, Witnesses{2, []Cosigner{f.w1.Cosigner(), f.w1.Cosigner()}}, policies.ErrMalformed},
		{"one key under two names", f.token + f.hostLine + f.w2Line, Witnesses{2, []Cosigner{f.w2, {"witness.example/w3", f.w2.Type, f.w2.PublicKey}}}, policies.ErrMalformed},
		{"the host as its own witness", f.token + f.hostLine, Witnesses{1, []Cosigner{f.host.Cosigner()}}, policies.ErrMalformed},
		{"the token as witness", f.token + f.hostLine, Witnesses{1, []Cosigner{{"w", CosignatureEd25519, f.vault.LogKey.PublicKey}}}, policies.ErrMalformed},
		{"a witness whose key is cut", f.token + f.hostLine, Witnesses{0, []Cosigner{{"w", CosignatureMLDSA44, filled(1311, 1)}}}, policies.ErrMalformed},
	} {
		if _, err := OpenPublished(c.text, f.vault, c.witnesses); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	whole := f.token + f.hostLine + f.w1Line
	for i := 0; i < len(whole); i += 5 {
		if i+1 < len(whole) && whole[i+1] == '=' {
			continue // some bits of the last character before padding mean nothing
		}
		if _, err := OpenPublished(string(flip([]byte(whole), i)), f.vault, f.witnesses(1)); err == nil {
			t.Errorf("byte %d of a published checkpoint changed makes no difference", i)
		}
	}
	noHost := *f.vault
	noHost.LogHostKey = policies.LogKey{}
	if _, err := OpenPublished(whole, &noHost, Witnesses{}); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("a vault document without host's key: %v", err)
	}
}

func TestCosigner(t *testing.T) {
	f := newPublishedFixture()
	for _, c := range []Cosigner{f.w1.Cosigner(), f.w2} {
		back, err := ParseCosigner(c.String())
		if err != nil || back.String() != c.String() || back.Name != c.Name || back.Type != c.Type {
			t.Errorf("%s came back as %s, %v", c, back, err)
		}
	}
	good := f.w2.String()
	for name, text := range map[string]string{
		"empty": "", "no plus": "a", "one plus": "a+00000000", "another name": "x" + good, "another id": strings.Replace(good, fmt.Sprintf("%08x", f.w2.keyHash()), "00000000", 1),
		"id in capitals": strings.ToUpper(good[:len(f.w2.Name)+9]) + good[len(f.w2.Name)+9:], "a longer key": good + "AAAA", "no name": strings.TrimPrefix(good, f.w2.Name),
		"a space in the name": Cosigner{"a b", CosignatureEd25519, f.w2.PublicKey}.String(), "a key that signs notes": Cosigner{"a", 1, f.w2.PublicKey}.String(),
		"ML-DSA of 32 bytes": Cosigner{"a", CosignatureMLDSA44, f.w2.PublicKey}.String(), "a name too long": Cosigner{strings.Repeat("n", 256), CosignatureEd25519, f.w2.PublicKey}.String(),
		"no key": Cosigner{"a", CosignatureEd25519, nil}.String(),
	} {
		if c, err := ParseCosigner(text); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%s: got %v, %v", name, c, err)
		}
	}
	// The example of C2SP signed-note is a key that signs notes: not one that cosigns.
	if _, err := ParseCosigner("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("a key of type 1: %v", err)
	}
	if _, err := NewCosignerKey("a+b", &[32]byte{}); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("a name with a plus: %v", err)
	}
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Unix(latest+1, 0)} {
		if _, err := f.w1.Cosign("o", Checkpoint{}, at); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("signed at %v: %v", at, err)
		}
	}
	for _, origin := range []string{"", strings.Repeat("o", 256)} {
		if _, err := f.w1.Cosign(origin, Checkpoint{}, testTime); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("signed for an origin of %d bytes: %v", len(origin), err)
		}
	}
	// A key prints as its public half.
	public := f.w1.Cosigner().String()
	for _, text := range []string{fmt.Sprint(f.w1), fmt.Sprintf("%v %+v %#v", f.w1, f.w1, f.w1)[:len(public)], strings.Trim(string(must(json.Marshal(f.w1))), `"`)} {
		if text != public {
			t.Errorf("a key prints as %.80s", text)
		}
	}
}

func FuzzOpenPublished(f *testing.F) {
	p := newPublishedFixture()
	f.Add(p.token + p.hostLine + p.w1Line + p.w2Line)
	f.Add(p.token + p.hostLine)
	f.Add(p.token)
	genuine := Checkpoint{7, policies.Hash(p.log.root(7))}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := OpenPublished(text, p.vault, p.witnesses(1))
		if err == nil && (got.Checkpoint != genuine || !got.Host.Equal(testTime) || len(got.Witnesses) == 0) {
			t.Errorf("a checkpoint was forged: %+v", got)
		}
		if err != nil && !errors.Is(err, policies.ErrSignature) && !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("got %v", err)
		}
	})
}

func FuzzParseCosigner(f *testing.F) {
	p := newPublishedFixture()
	f.Add(p.w1.Cosigner().String())
	f.Add(p.w2.String())
	f.Add("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCosigner(text)
		if err == nil && c.String() != text {
			t.Errorf("%q came back as %q", text, c.String())
		}
		if err != nil && !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("got %v", err)
		}
	})
}

// An Ed25519 cosigner's line is what its specification says, byte by byte, and opens like the other.
func TestEd25519Cosigner(t *testing.T) {
	f := newPublishedFixture()
	k := must(NewEd25519CosignerKey(f.w2.Name, (*[32]byte)(filled(32, 3))))
	if k.Cosigner().String() != f.w2.String() {
		t.Fatalf("the key of the seed is %s, not %s", k.Cosigner(), f.w2)
	}
	c := must(OpenCheckpoint(f.token, f.vault.LogKey))
	if got := must(k.Cosign(f.log.name, c, testTime.Add(2*time.Second))); got != f.w2Line {
		t.Errorf("the line is %q, not %q", got, f.w2Line)
	}
	if _, err := NewEd25519CosignerKey("a b", &[32]byte{}); !errors.Is(err, policies.ErrMalformed) {
		t.Errorf("a name with a space: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %x", k, k, k); strings.Contains(text, strings.Repeat("03", 8)) || strings.Contains(text, "[3 3") {
		t.Errorf("the key prints: %s", text)
	}
}

func TestOpenCosigned(t *testing.T) {
	f := newPublishedFixture()
	all := []Cosigner{f.host.Cosigner(), f.w1.Cosigner(), f.w2}
	c, by, err := OpenCosigned(f.token+f.w2Line+f.hostLine, f.vault.LogKey, Witnesses{2, all})
	if err != nil || c.Size != 7 || len(by) != 2 || by[0].By.Name != f.w2.Name || !by[1].At.Equal(testTime) {
		t.Fatalf("%+v, %+v, %v", c, by, err)
	}
	for name, c := range map[string]struct {
		text string
		need int
		want error
	}{
		"nobody is needed":      {f.token, 0, nil},
		"one is missing":        {f.token + f.hostLine + f.w1Line, 3, policies.ErrSignature},
		"the log's own line":    {f.token[:strings.Index(f.token, "\n\n")+2] + f.hostLine + f.w1Line + f.w2Line, 3, policies.ErrSignature},
		"a line that is broken": {f.token + line(f.w2, 5, filled(64, 1)), 0, policies.ErrSignature},
		"four of three":         {f.token, 4, policies.ErrMalformed},
	} {
		if _, _, err := OpenCosigned(c.text, f.vault.LogKey, Witnesses{c.need, all}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestParseLogKey(t *testing.T) {
	f := newPublishedFixture()
	vkey := must(note.NewEd25519VerifierKey(f.vault.LogKey.Name, f.vault.LogKey.PublicKey))
	if k, err := ParseLogKey(vkey); err != nil || k.Name != f.vault.LogKey.Name || string(k.PublicKey) != string(f.vault.LogKey.PublicKey) {
		t.Fatalf("%+v, %v", k, err)
	}
	for _, bad := range []string{"", "a", "a+b", "a+00000000+AAAA", vkey + "A", vkey[1:], f.w2.String(), f.w1.Cosigner().String()} {
		if _, err := ParseLogKey(bad); !errors.Is(err, policies.ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseLogKey(f *testing.F) {
	f.Add(must(note.NewEd25519VerifierKey("vault.example/log", filled(32, 1))))
	f.Fuzz(func(t *testing.T, vkey string) {
		k, err := ParseLogKey(vkey)
		if err != nil {
			return
		}
		if _, err := note.NewEd25519VerifierKey(k.Name, k.PublicKey); err != nil {
			t.Errorf("%q is read as no key: %v", vkey, err)
		}
	})
}

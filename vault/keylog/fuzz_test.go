package keylog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func testKey() (ed25519.PrivateKey, logID) {
	seed := sha256.Sum256([]byte("log key"))
	key := ed25519.NewKeyFromSeed(seed[:])
	return key, newLogID(origin, key.Public().(ed25519.PublicKey))
}

// FuzzFrame: whatever parses has one spelling, and the scanner agrees with the
// parser on every input.
func FuzzFrame(f *testing.F) {
	whole, _ := appendRecord(nil, kindRecord, 7, 1_800_000_000_000, []byte("entry"), []byte("body"))
	erased, _ := appendRecord(nil, kindErased, 7, 0, nil, nil)
	seal := appendSeal(nil, 8, make([]byte, 32))
	f.Add(append(bytes.Clone(whole), seal...))
	f.Add(erased)
	f.Add(seal)
	f.Add(whole[:len(whole)-1])
	f.Add(make([]byte, 64))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= frameHead { // let the fuzzer get past the checksum
			if n, err := payloadLength(b); err == nil && n <= len(b)-frameHead {
				putCRC(b[: frameHead+n : frameHead+n])
			}
		}
		p, n, err := parseFrame(b)
		scan := newScanner(bytes.NewReader(b), 0, int64(len(b)))
		defer scan.close()
		q, at, scanErr := scan.next()
		if len(b) == 0 {
			if scanErr != io.EOF {
				t.Fatal(scanErr)
			}
			return
		}
		if !errors.Is(scanErr, err) || at != 0 {
			t.Fatalf("parser says %v, scanner %v", err, scanErr)
		}
		if err != nil {
			if !errors.Is(err, errTorn) && !errors.Is(err, errForeign) {
				t.Fatal(err)
			}
			return
		}
		if p.kind != q.kind || p.index != q.index || !bytes.Equal(p.leaf, q.leaf) || !bytes.Equal(p.body, q.body) {
			t.Fatal("parser and scanner differ")
		}
		var again []byte
		if p.kind == kindSeal {
			again = appendSeal(nil, p.index, p.mac)
		} else {
			var leaf tlog.Hash
			body := p.body
			if p.kind == kindErased { // zeros are in its place
				body = make([]byte, n-frameHead-recordHead-len(p.entry))
			}
			again, leaf = appendRecord(nil, p.kind, p.index, p.time, p.entry, body)
			if leaf != p.hash() || leaf != tlog.RecordHash(p.leaf[1:]) {
				t.Fatal("leaf hash differs")
			}
		}
		if !bytes.Equal(again, b[:n]) {
			t.Fatalf("%x parses, but is written as %x", b[:n], again)
		}
	})
}

func FuzzSigned(f *testing.F) {
	key, id := testKey()
	s := signed{generation: 4, size: 9, id: id}
	copy(s.signature[:], ed25519.Sign(key, []byte("x")))
	f.Add(s.encode())
	f.Add(s.encode()[1:])
	f.Add(make([]byte, slotSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSigned(b); err == nil && !bytes.Equal(s.encode(), b) {
			t.Fatalf("%x has two spellings", b)
		}
	})
}

func FuzzState(f *testing.F) {
	_, id := testKey()
	head := encodeHead(id, newSealKey([]byte("seal key")))
	first, second := signed{generation: 6, size: 3, id: id}, signed{generation: 7, size: 5, id: id}
	f.Add(head, first.encode(), second.encode())
	f.Add(head, make([]byte, slotSize), second.encode())
	f.Add(head, second.encode(), first.encode())
	f.Add(head, []byte{}, []byte{})
	f.Add([]byte{}, first.encode(), second.encode())
	f.Fuzz(func(t *testing.T, head, one, two []byte) {
		b := make([]byte, 3*statePage)
		copy(b[:statePage], head)
		copy(b[statePage:2*statePage], one)
		copy(b[2*statePage:], two)
		_, states, err := parseState(b, id)
		if err != nil {
			var damage *DamageError
			if !errors.As(err, &damage) {
				t.Fatal(err)
			}
			return
		}
		if len(states) == 0 || len(states) == 2 && states[0].generation != states[1].generation+1 {
			t.Fatalf("accepted %v", states)
		}
		for i := range len(b) / 1000 {
			if _, _, err := parseState(b[:i*1000], id); err == nil {
				t.Fatal("accepted a short file")
			}
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	key, _ := testKey()
	vkey, err := note.NewEd25519VerifierKey(origin, key.Public().(ed25519.PublicKey))
	if err != nil {
		f.Fatal(err)
	}
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(checkpointText(origin, 0, tlog.Hash{}))
	f.Add(checkpointText(origin, 1<<62, tlog.Hash{1}))
	f.Add(checkpointText("other", 5, tlog.Hash{}))
	f.Add(origin + "\n05\nAAAA\n")
	f.Add(origin + "\n-1\n" + tlog.Hash{}.String() + "\n")
	f.Add(origin + "\n5\n" + tlog.Hash{}.String() + "\nextension\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := parseCheckpoint([]byte(text), verifier); err == nil {
			t.Fatal("accepted without a signature")
		}
		sig := signature{verifier, ed25519.Sign(key, []byte(text))}
		b, err := note.Sign(&note.Note{Text: text}, sig)
		if err != nil {
			return
		}
		c, err := parseCheckpoint(b, verifier)
		if err == nil && (checkpointText(origin, c.Size, c.Root) != text || c.Size < 0) {
			t.Fatalf("accepted %q", text)
		}
	})
}

// FuzzBorder: whoever cannot make the MAC cannot make a border, and what parses is written the same way again.
func FuzzBorder(f *testing.F) {
	key, id := newSealKey([]byte("key")), logID{1}
	var b border
	for i := range 5 {
		b.edge.add(nil, tlog.Hash{byte(i)})
	}
	b.time, b.cold = 7, []int64{0, 3}
	whole := b.encode(id, key)
	f.Add(whole[:len(whole)-32], false)
	f.Add(whole, true)
	f.Fuzz(func(t *testing.T, raw []byte, asItIs bool) {
		if !asItIs {
			raw = append(raw[:len(raw):len(raw)], key.mac(raw)...)
		}
		b, err := parseBorder(raw, id, key)
		if err != nil {
			return
		}
		if again := b.encode(id, key); !bytes.Equal(again, raw) {
			t.Fatalf("%x is written as %x", raw, again)
		}
	})
}

package reconcile

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// Where pkcs11-spy writes a line in pieces, between which another thread may write.
var pieces = regexp.MustCompile(`^(\[(?:in|out)\] \w+\[\*?\w+\](?: =)? |    CKA_\w+ +)([0-9a-fN].*)$`)

// sideBySide has threads make calls at the same time, and mixes what the spy writes of them, as it does: piece by piece.
func (w *world) sideBySide(random *rand.Rand, threads ...func()) {
	before, number := w.trace.String(), w.calls
	var each [][]string
	for _, f := range threads {
		w.trace.Reset()
		f()
		var all []string
		for line := range strings.Lines(w.trace.String()) {
			if m := pieces.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
				all = append(all, m[1], m[2]+"\n")
			} else if line != "\n" {
				all = append(all, line)
			}
		}
		each = append(each, all)
	}
	w.trace.Reset()
	w.trace.WriteString(before)
	for len(each) > 0 {
		i := random.IntN(len(each))
		for range 1 + random.IntN(9) {
			if len(each[i]) == 0 {
				break
			}
			piece := each[i][0]
			if _, call, ok := strings.Cut(piece, ": C_"); ok { // a thread numbers a call when it begins it
				piece = fmt.Sprintf("\n%d: C_%s", number, call)
				number++
			}
			w.trace.WriteString(piece)
			each[i] = each[i][1:]
		}
		if len(each[i]) == 0 {
			each = slices.Delete(each, i, i+1)
		}
	}
	w.calls = number
}

// bring is what one thread does of an import: the key of one field.
func (w *world) bring(f policies.Field) {
	w.unwrap("sallyport import resident", name(resident, f), id(resident, f))
	w.derive(name(resident, f), true)
}

// mixedLife is a life in which the keys of one grant come side by side, and do is done beside them. Then, at a time that it returns, each is looked for, and used.
func (w *world) mixedLife(random *rand.Rand, do func()) (found time.Time) {
	r := w.entry(evidence.EntryImport, "", evidence.Details{Owner: owner, Reader: reader, Grant: resident, Custody: policies.CustodyResident},
		grantOf(resident, policies.CustodyResident, "phone", "iban"))
	w.sign()
	w.sideBySide(random, func() { w.bring("phone") }, func() {
		if do != nil {
			do()
		}
		w.bring("iban")
	})
	found = w.now
	for _, f := range []policies.Field{"phone", "iban"} {
		w.finds("sallyport re-encryption key", id(resident, f), w.of(name(resident, f)))
		w.derive(name(resident, f), true)
	}
	w.entry(evidence.EntryGrant, policies.CodeAccepted, evidence.Details{Owner: owner, Reader: reader, Grant: resident, Index: r.Index, Custody: policies.CustodyResident,
		Checks: make([]byte, 2*evidence.KeyCheckSize)}, nil)
	w.sign()
	w.use(resident, policies.CustodyResident, "phone")
	w.use(resident, policies.CustodyResident, "iban")
	w.revoke(resident, "phone")
	w.end()
	return found
}

// However the lines of two threads lie: nothing untrue is said of an honest vault, and it is not called clean; what it does later is compared key by key.
func TestMixedLines(t *testing.T) {
	mixed := 0
	for seed := range uint64(200) {
		w := newWorld(t)
		found := w.mixedLife(rand.New(rand.NewPCG(seed, 1)), nil)
		r := w.reconcile()
		if r.Clean != (r.Counts[Mixed] == 0) || len(r.Findings) != int(r.Counts[Mixed]) {
			t.Fatalf("seed %d: %v %+v", seed, r.Counts, r.Findings)
		}
		for _, f := range r.Findings {
			if f.Time.After(found) {
				t.Fatalf("seed %d: after the keys were found again: %+v", seed, f)
			}
			if f.Class != "" && strings.HasPrefix(f.Place, "line ") { // with what mixed lines made
				continue
			}
			mixed++
			if f.Class != "" || f.Time.IsZero() || !strings.HasPrefix(f.Place, "lines ") || !strings.Contains(f.Reason, "side by side") {
				t.Fatalf("seed %d: %+v", seed, f)
			}
		}
	}
	if mixed < 200 {
		t.Errorf("%d runs of mixed lines: this tests nothing", mixed)
	}
}

// What a vault does beside others on purpose is one too many all the same.
func TestMixedAttack(t *testing.T) {
	phone := name(resident, "phone")
	for _, row := range []struct {
		what string
		lie  func(w *world)
		want string
	}{
		{"a use", func(w *world) { w.derive(phone, false) }, Unlogged + " derive"},
		{"a use, with the point of a canary", func(w *world) { w.derive(phone, true) }, Unlogged + " derive"},
		{"a use, and calls that fail", func(w *world) {
			w.derive(phone, false)
			for range 4 {
				w.call("C_SignInit", "96 CKR_KEY_HANDLE_INVALID", "[in] hSession = 0x9", "[in] pMechanism->type = CKM_EDDSA", "[in] hKey = 0x999")
			}
		}, Unlogged + " derive"},
		{"a key imported for nobody", func(w *world) { w.unwrap("sallyport import resident", "mine", []byte(strings.Repeat("x", 32))) }, Unlogged + " unwrap"},
		{"a use, with what ends like a return", func(w *world) {
			w.call("C_Sign", "", "[in] hSession = 0x6", "[in] pData[ulDataLen] 00007f0dd8081b60 / 16\n    00000000  52 65 74 75 72 6E 65 64 3A 20 20 30 20 43 4B 52  Returned:  0 CKR")
			w.derive(phone, false)
		}, Unlogged + " derive"},
	} {
		t.Run(row.what, func(t *testing.T) {
			for seed := range uint64(100) {
				w := newWorld(t)
				w.mixedLife(rand.New(rand.NewPCG(seed, 2)), func() { row.lie(w) })
				r := w.reconcile()
				found := slices.ContainsFunc(r.Findings, func(f Finding) bool { return fmt.Sprintf("%s %s", f.What, f.Class) == row.want && f.Place != "" })
				if r.Clean || !found {
					t.Fatalf("seed %d: %v %+v", seed, r.Counts, r.Findings)
				}
			}
		})
	}
}

// A use of another key than the log says, or a signature over another log, is no more than not compared where it is mixed; but that is said.
func TestMixedSwap(t *testing.T) {
	for what, lie := range map[string]func(w *world){
		"another key": func(w *world) {
			w.logUse(resident, policies.CustodyResident, "phone")
			w.tangle(func() { w.derive(name(resident, "iban"), false) })
		},
		"another log": func(w *world) { w.tangle(func() { w.signs("sallyport/another", 3, w.root()) }) },
		"a key that was found so": func(w *world) {
			w.tangle(func() { w.find("sallyport re-encryption key", id(resident, "iban")) })
			w.logUse(resident, policies.CustodyResident, "iban")
			w.derive(fmt.Sprintf("%x", id(resident, "iban")), false)
		},
		"a signature begun so": func(w *world) {
			w.tangle(func() {
				w.call("C_SignInit", "", "[in] hSession = 0x6", "[in] pMechanism->type = CKM_EDDSA", "[in] hKey = 0x5")
			})
			w.call("C_Sign", "", "[in] hSession = 0x6", "[in] pData[ulDataLen] "+dump([]byte("x")), "[out] pSignature[*pulSignatureLen] "+dump(make([]byte, 64)))
		},
		"a key destroyed": func(w *world) { w.tangle(func() { w.destroy("live " + name(sealedID, "adr")) }) },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.life(func() { lie(w) })
			r := w.reconcile()
			if r.Clean || r.Counts[Mixed] == 0 || r.Counts[Unlogged]+r.Counts[Unmade] > 0 {
				t.Errorf("%v %+v", r.Counts, r.Findings)
			}
		})
	}
}

// tangle does something while a call of another thread is under way all the time.
func (w *world) tangle(f func()) {
	at := w.calls
	w.calls++
	fmt.Fprintf(&w.trace, "\n%d: C_GetSlotList\n%s\n[in] tokenPresent = 0x1\n", at, w.now.Format("2006-01-02 15:04:05.000"))
	f()
	w.trace.WriteString("Returned:  0 CKR_OK\n")
}

// Traces that pkcs11-spy 0.23 wrote, shortened, and forms that no call has.
func TestSpyTangles(t *testing.T) {
	const begin = "\n0: C_Initialize\n2026-11-28 12:00:00.000\nReturned:  0 CKR_OK\n"
	const after = "\n4: C_DeriveKey\n2026-11-28 12:00:00.030\n[in] hSession = 0x7\n[in] hBaseKey = 0x21\n[out] hKey = 0x37\nReturned:  0 CKR_OK\n"
	for _, row := range []struct {
		what, text string
		place      string // of the operation that is mixed
		ops, mixed int
		failed     uint64
		entangled  []uint64 // handles
	}{
		{"one after the other", after, "", 1, 0, 0, nil},
		{"a return within a line", `
1: C_GetAttributeValue
[in] hSession = 0x18

2: C_DeriveKey
2026-11-28 12:00:00.010
2026-11-28 12:00:00.010
[in] hSession = 0x1a
[in] hObject = 0x1267
[in] pTemplate[1]: 
    CKA_VALUE             [in] hBaseKey = 0x21
[out] hKey = 0x36
Returned:  0 CKR_OK
0000000000000000 / 0Returned:  18 CKR_ATTRIBUTE_TYPE_INVALID
` + after, "lines 6 to 18, call 2", 2, 1, 0, []uint64{0x36}},
		{"a time within a line", `
1: C_Sign
2026-11-28 12:00:00.010
[in] pData[ulDataLen] 
2: C_DeriveKey
2026-11-28 12:00:00.010
[out] hKey = 0x36
[out] pSignature[*pulSignatureLen] Returned:  0 CKR_OK
00007f0dd8081b60 / 1

3: C_DestroyObject
    00000000  61                                               a               2026-11-28 12:00:00.020
[in] hObject = 0x21

Returned:  0 CKR_OK
Returned:  0 CKR_OK
` + after, "lines 6 to 20, call 1", 4, 3, 0, []uint64{0x21, 0x36}},
		{"two that fail", `
1: C_DeriveKey
2026-11-28 12:00:00.010

2: C_DeriveKey
2026-11-28 12:00:00.010
Returned:  2147483649 (null)
Returned:  96 CKR_KEY_HANDLE_INVALID
` + after, "", 1, 0, 2, nil},
		{"two at the end of the trace", after + `
5: C_DeriveKey
2026-11-28 12:00:00.010

6: C_UnwrapKey
`, "lines 13 to 16, call 5", 3, 2, 0, nil},
	} {
		token, err := ReadSpy(strings.NewReader(begin+row.text), time.UTC)
		if err != nil {
			t.Errorf("%s: %v", row.what, err)
			continue
		}
		mixed, place := 0, ""
		for _, o := range token.ops {
			if o.mixed {
				mixed++
				place = cmp.Or(place, o.place)
			}
			if strings.HasPrefix(o.place, "line ") && o.vague() != slices.Contains(row.entangled, 0x21) {
				t.Errorf("%s: the derive after it: %+v", row.what, o)
			}
		}
		if len(token.ops) != row.ops || mixed != row.mixed || token.failed[Derive] != row.failed || place != row.place {
			t.Errorf("%s: %d operations, %d mixed, %v failed, first at %q", row.what, len(token.ops), mixed, token.failed, place)
		}
	}
	for what, text := range map[string]string{
		"a name":                   "    DN: CN=Returned:  0 CKR_OK\n",
		"a call without a time":    "\n1: C_DeriveKey\nReturned:  0 CKR_OK\n\n0: C_DeriveKey\nReturned:  0 CKR_OK\n",
		"a return without a call":  "Returned:  0 CKR_OK\n",
		"an argument without one":  "[in] hSession = 0x7\n",
		"a call of another number": "\n99: C_DeriveKey\n",
	} {
		if what == "a call without a time" {
			text = text[strings.Index(text, "\n0:"):]
			if _, err := ReadSpy(strings.NewReader(text), time.UTC); err == nil {
				t.Error(what)
			}
			continue
		}
		if _, err := ReadSpy(strings.NewReader(begin+text), time.UTC); err == nil {
			t.Error(what)
		}
	}
}

// As many as can be: against all ways there are.
func TestSpread(t *testing.T) {
	options := &Options{Window: 4 * time.Second, Skew: time.Second}
	for seed := range uint64(2000) {
		random := rand.New(rand.NewPCG(seed, 3))
		at := func() time.Time { return begun.Add(time.Duration(random.IntN(12)) * time.Second) }
		keys := []key{{kind: reencryption, id: "a"}, {kind: reencryption, id: "b"}}
		var wants []*want
		for range random.IntN(5) {
			wants = append(wants, &want{class: Derive, key: keys[random.IntN(2)], at: at(), optional: random.IntN(4) == 0})
		}
		var known, vague []*operation
		for range random.IntN(4) {
			known = append(known, &operation{class: Derive, key: keys[random.IntN(2)], at: at()})
		}
		for range random.IntN(4) {
			vague = append(vague, &operation{class: Derive, at: at(), mixed: true})
		}
		fits := func(o *operation, w *want) bool { return o.mixed || o.key == w.key }
		var pairs []*pair
		var kept []*operation
		for _, k := range keys {
			of := func(k key) (ws []*want, ops []*operation) {
				for _, w := range wants {
					if w.key == k {
						ws = append(ws, w)
					}
				}
				for _, o := range known {
					if o.key == k {
						ops = append(ops, o)
					}
				}
				return ws, ops
			}
			ws, ops := of(k)
			some, extra := match(ws, ops, options)
			pairs = append(pairs, some...)
			for _, o := range ops {
				if !slices.Contains(extra, o) {
					kept = append(kept, o)
				}
			}
		}
		extra := spread(pairs, vague, fits)
		taken := map[*operation]bool{}
		for _, p := range pairs {
			if p.op == nil {
				continue
			}
			from, to := p.w.window(options)
			if taken[p.op] || !fits(p.op, p.w) || p.op.at.Before(from) || p.op.at.After(to) {
				t.Fatalf("seed %d: %+v is given to %+v", seed, p.op, p.w)
			}
			taken[p.op] = true
		}
		if len(taken) != len(kept)+len(vague)-len(extra) {
			t.Fatalf("seed %d: %d operations have a want", seed, len(taken))
		}
		if want := most(slices.Concat(kept, vague), wants, map[*want]bool{}, options, fits); len(taken) != want {
			t.Fatalf("seed %d: %d have a want, %d could", seed, len(taken), want)
		}
	}
}

// most is how many operations can have a want, by trying all ways.
func most(ops []*operation, wants []*want, used map[*want]bool, options *Options, fits func(*operation, *want) bool) int {
	if len(ops) == 0 {
		return 0
	}
	best := most(ops[1:], wants, used, options, fits)
	for _, w := range wants {
		from, to := w.window(options)
		if used[w] || !fits(ops[0], w) || ops[0].at.Before(from) || ops[0].at.After(to) {
			continue
		}
		used[w] = true
		best = max(best, 1+most(ops[1:], wants, used, options, fits))
		used[w] = false
	}
	return best
}

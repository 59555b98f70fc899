package reconcile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

func TestHonestVaultLeavesNothingOver(t *testing.T) {
	w := newWorld(t)
	w.life(nil)
	r := w.reconcile()
	if !r.Clean || len(r.Findings) > 0 {
		t.Errorf("%+v", r.Findings)
	}
	if r.Signatures == 0 || r.Entries != uint64(len(w.entries)) || r.Rows[0].Class != Derive || r.Rows[0].Demanded != 4+2*2+2+1 {
		t.Errorf("%+v", r)
	}
}

// A key that is not where it should be is looked for among all of them. The derives by which that is done need the entry that says so.
func TestHunt(t *testing.T) {
	for _, note := range []string{"1 under another name", "1 not in the token", ""} {
		w := newWorld(t)
		w.life(func() {
			w.derive(name(resident, "phone"), true)
			w.derive(name(resident, "iban"), true)
			items := []policies.RevokedItem{{Grant: resident, Field: "phone", Author: author}}
			w.entry(evidence.EntryDestroyed, policies.CodeAccepted, evidence.Details{Owner: owner, Items: items, Custody: policies.CustodyResident, Note: note}, nil)
			w.sign()
		})
		if r := w.reconcile(); r.Clean != (note != "") {
			t.Errorf("note %q: %+v", note, r.Findings)
		}
	}
}

// Each row is a lie, of the vault, of the host, or of the log, and what must be said of it.
func TestLies(t *testing.T) {
	phone := name(resident, "phone")
	for _, row := range []struct {
		what string
		lie  func(w *world)
		want string // what, class and, of an entry, its kind
	}{
		{"a use that was not logged", func(w *world) { w.derive(phone, false) }, Unlogged + " derive"},
		{"a use that was made twice", func(w *world) {
			w.use(resident, policies.CustodyResident, "phone")
			w.derive(phone, false)
		}, Unlogged + " derive"},
		{"a use of a sealed key that was not logged", func(w *world) { w.derive("live "+name(sealedID, "adr"), false) }, Unlogged + " derive"},
		{"a use that was logged for another key", func(w *world) {
			w.logUse(resident, policies.CustodyResident, "iban")
			w.derive(phone, false)
		}, Unlogged + " derive; " + Unmade + " derive"},
		{"a use that was logged long before", func(w *world) {
			w.logUse(resident, policies.CustodyResident, "phone")
			w.now = w.now.Add(time.Hour)
			w.derive(phone, false)
		}, Unlogged + " derive; " + Unmade + " derive"},
		{"a use that was logged after it", func(w *world) {
			w.derive(phone, false)
			w.now = w.now.Add(time.Minute)
			w.logUse(resident, policies.CustodyResident, "phone")
		}, Unlogged + " derive; " + Unmade + " derive"},
		{"a use that was logged and not made", func(w *world) { w.logUse(resident, policies.CustodyResident, "phone") }, Unmade + " derive"},
		{"a refusal that was none", func(w *world) {
			w.entry(evidence.EntryRefusal, policies.CodeRevoked, evidence.Details{Grant: resident, Field: "phone", Author: author}, nil)
			w.sign()
			w.derive(phone, false)
		}, Unlogged + " derive"},
		{"a key imported for nobody", func(w *world) { w.unwrap("sallyport import resident", "mine", []byte(strings.Repeat("x", 32))) }, Unlogged + " unwrap"},
		{"a sealed key imported for nobody", func(w *world) { w.unwrap("sallyport import sealed", "mine", nil) }, Unlogged + " unwrap"},
		{"a copy of a sealed key, loaded and wrapped anew", func(w *world) {
			w.unwrap("sallyport sealing 1", "mine", nil)
			w.wrap("sallyport sealing 1", "mine")
		}, Unlogged + " wrap"},
		{"more sealed keys loaded than there were uses", func(w *world) {
			for range 3 {
				w.unwrap("sallyport sealing 1", "mine", nil)
			}
		}, Unlogged + " unwrap"},
		{"a re-encryption key wrapped under the host's own key", func(w *world) {
			w.call("C_GenerateKey", "", "[in] hSession = 0x5", "[in] pMechanism->type = CKM_AES_KEY_GEN", "[in] pTemplate[1]: ", "    CKA_TOKEN             False", "[out] hKey = "+w.made("host's"))
			w.wrap("host's", phone)
		}, Unlogged + " wrap"},
		{"a re-encryption key copied", func(w *world) {
			w.call("C_CopyObject", "", "[in] hSession = 0x5", "[in] hObject = "+w.of(phone), "[in] pTemplate[0]: ", "[out] *phNewObject = "+w.made("copy"))
		}, Unlogged + " change"},
		{"a re-encryption key renamed", func(w *world) {
			w.call("C_SetAttributeValue", "", "[in] hSession = 0x5", "[in] hObject = "+w.of(phone), "[in] pTemplate[1]: ", "    CKA_LABEL             "+print("nothing"))
		}, Unlogged + " change"},
		{"a re-encryption key destroyed", func(w *world) {
			w.destroy(name(resident, "iban"))
			w.find("sallyport re-encryption key", id(resident, "iban"))
		}, Unlogged + " destroy"},
		{"a canary that is none", func(w *world) { w.derive(phone, true) }, Unlogged + " derive"},
		{"a derive with the import key", func(w *world) { w.derive("sallyport import resident", false) }, Unlogged + " derive"},
		{"a derive with a key that nobody found", func(w *world) { w.objects["guessed"] = 99; w.derive("guessed", false) }, Unlogged + " derive"},
		{"a signature by another key of the token", func(w *world) {
			w.find("another key", nil)
			w.objects["sallyport log"], w.objects["log"] = w.objects["another key"], w.objects["sallyport log"]
			w.sign()
			w.objects["sallyport log"] = w.objects["log"]
		}, Unlogged + " sign"},
		{"a signature over another tree", func(w *world) { w.signs(origin, 3, tlog.Hash{1}) }, Forged + " sign"},
		{"a signature over another log", func(w *world) { w.signs("sallyport/another", int64(len(w.entries)), w.root()) }, Forged + " sign"},
		{"a signature over no tree", func(w *world) { w.signs("free text", -1, tlog.Hash{}) }, Forged + " sign"},
		{"the PIN set anew", func(w *world) {
			w.call("C_InitPIN", "", "[in] hSession = 0x5", "[in] pPin[ulPinLen] "+dump([]byte("1234")))
		}, Unlogged + " manage"},
		{"a key made that stays", func(w *world) {
			w.call("C_GenerateKey", "", "[in] hSession = 0x5", "[in] pMechanism->type = CKM_AES_KEY_GEN", "[in] pTemplate[2]: ", "    CKA_TOKEN             True",
				"    CKA_LABEL             "+print("mine"), "[out] hKey = "+w.made("mine"))
		}, Unlogged + " generate"},
	} {
		t.Run(row.what, func(t *testing.T) {
			w := newWorld(t)
			w.life(func() { row.lie(w) })
			r := w.reconcile()
			got := map[string]bool{}
			for _, f := range r.Findings {
				got[fmt.Sprintf("%s %s", f.What, f.Class)] = true
				if f.What != Unmade && f.Place == "" || f.What == Unmade && f.Entry == nil {
					t.Errorf("a finding without a place: %+v", f)
				}
			}
			for _, want := range strings.Split(row.want, "; ") {
				if !got[want] {
					t.Errorf("not found: %s", want)
				}
				delete(got, want)
			}
			if len(got) > 0 || r.Clean {
				t.Errorf("found besides: %v\n%+v", got, r.Findings)
			}
		})
	}
}

// What is excused is excused for a reason, and nothing is said of it.
func TestNoLies(t *testing.T) {
	for what, do := range map[string]func(w *world){
		"a use that failed and was recorded so": func(w *world) {
			r := w.logUse(resident, policies.CustodyResident, "phone")
			w.call("C_DeriveKey", "48 CKR_DEVICE_ERROR", "[in] hSession = 0x7", "[in] pMechanism->type = CKM_ECDH1_DERIVE", "[in] hBaseKey = "+w.of(name(resident, "phone")), "[in] pTemplate[0]: ")
			w.entry(evidence.EntryFailed, policies.CodeTokenFailure, evidence.Details{Index: r.Index}, nil)
			w.sign()
		},
		"a use whose answer was lost": func(w *world) {
			r := w.use(resident, policies.CustodyResident, "phone")
			w.entry(evidence.EntryFailed, policies.CodeTokenFailure, evidence.Details{Index: r.Index}, nil)
			w.sign()
		},
		"an item that the reader had": func(w *world) {
			w.entry(evidence.EntryUse, policies.CodeUnchanged, evidence.Details{Grant: resident, Field: "phone", Author: author}, nil)
			w.sign()
		},
		"an import that the token refused": func(w *world) {
			r := w.entry(evidence.EntryImport, "", evidence.Details{Grant: policies.DocumentID{3}}, grantOf(policies.DocumentID{3}, policies.CustodyResident, "x"))
			w.sign()
			w.call("C_UnwrapKey", "64 CKR_ENCRYPTED_DATA_INVALID", "[in] hSession = 0x5", "[in] pMechanism->type = CKM_RSA_PKCS_OAEP", "[in] hUnwrappingKey = "+w.of("sallyport import resident"),
				"[in] pWrappedKey[ulWrappedKeyLen] "+dump([]byte{1}), "[in] pTemplate[0]: ")
			w.entry(evidence.EntryFailed, policies.CodeImport, evidence.Details{Grant: policies.DocumentID{3}, Index: r.Index}, nil)
			w.sign()
		},
		"another worker": func(w *world) {
			before, objects := w.calls, w.objects
			w.open()
			w.call("C_Finalize", "", "[in] pReserved = (nil)")
			w.calls, w.objects = before, objects
		},
		"a probe with throw-away keys": func(w *world) {
			w.derive("canary", false)
			w.call("C_GenerateKey", "", "[in] hSession = 0x5", "[in] pMechanism->type = CKM_AES_KEY_GEN", "[in] pTemplate[1]: ", "    CKA_TOKEN             False", "[out] hKey = "+w.made("throw-away"))
			w.wrap("throw-away", "canary")
			w.unwrap("throw-away", "thrown", nil)
			w.derive("thrown", false)
		},
		"the move to another sealing key": func(w *world) {
			w.find("sallyport sealing 2", nil)
			w.unwrap("sallyport sealing 1", "moving", nil)
			w.derive("moving", true)
			w.wrap("sallyport sealing 2", "moving")
			w.unwrap("sallyport sealing 2", "moved", nil)
			w.derive("moved", true)
			w.entry(evidence.EntrySealing, policies.CodeAccepted, evidence.Details{Period: 1, Count: 1}, nil)
			w.sign()
			w.destroy("sallyport sealing 1")
		},
		"a use that a crash cut short": func(w *world) {
			w.logUse(resident, policies.CustodyResident, "phone")
			w.entry(evidence.EntryStart, policies.CodeAccepted, evidence.Details{Note: "{}"}, nil)
			w.sign()
		},
		"a state that is renewed": func(w *world) {
			w.call("C_CreateObject", "", "[in] hSession = 0x5", "[in] pTemplate[2]: ", "    CKA_TOKEN             True", "    CKA_LABEL             "+print("sallyport signer state"), "[out] *phObject = "+w.made("state"))
			w.destroy("state")
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.life(func() { do(w) })
			if r := w.reconcile(); !r.Clean {
				t.Errorf("%+v", r.Findings)
			}
		})
	}
}

// What was used is gone with an erased body; that something was is not, and an unlogged use does not hide behind it.
func TestErased(t *testing.T) {
	erase := func(w *world, kinds ...evidence.Kind) {
		for _, r := range w.entries {
			for _, k := range kinds {
				if r.Entry.Kind == k {
					r.Opening, r.Document = nil, nil
				}
			}
		}
	}
	w := newWorld(t)
	w.life(nil)
	erase(w, evidence.EntryUse)
	if r := w.reconcile(); !r.Clean || r.Erased != 4 {
		t.Errorf("erased uses: %d erased, %+v", r.Erased, r.Findings)
	}
	w = newWorld(t)
	w.life(func() { w.derive(name(resident, "phone"), false) })
	erase(w, evidence.EntryUse, evidence.EntryImport, evidence.EntryDestroyed)
	r := w.reconcile()
	if r.Counts[Unlogged] != 1 || r.Counts[Unsure] == 0 || r.Clean {
		t.Errorf("erased, and one use too many: %v %+v", r.Counts, r.Findings)
	}
}

func TestSpans(t *testing.T) {
	w := newWorld(t)
	w.life(nil)
	trace := w.trace.String()
	w.now = w.now.Add(time.Hour)
	w.logUse(resident, policies.CustodyResident, "iban")
	w.trace.Reset()
	w.trace.WriteString(trace)
	r := w.reconcile()
	if r.Outside != 1 || !r.Clean {
		t.Errorf("an entry after the end of the token's record: outside %d, %+v", r.Outside, r.Findings)
	}
}

func TestRefused(t *testing.T) {
	w := newWorld(t)
	w.life(nil)
	token := must(ReadSpy(strings.NewReader(w.trace.String()), time.UTC))
	whole, size := w.root(), int64(len(w.entries))
	for what, change := range map[string]func([]*audit.Record) []*audit.Record{
		"its first entry": func(r []*audit.Record) []*audit.Record { return r[1:] },
		"its last entry":  func(r []*audit.Record) []*audit.Record { return r[:len(r)-1] },
		"its entries":     func(r []*audit.Record) []*audit.Record { return nil },
		"an entry as it was": func(r []*audit.Record) []*audit.Record {
			changed := *r[4]
			changed.Leaf = bytes.Clone(changed.Leaf)
			changed.Leaf[20] ^= 1
			r[4] = &changed
			return r
		},
	} {
		all := w.entries
		w.entries = change(slices.Clone(all))
		if _, err := reconcile(token, w.log(), tlog.Tree{N: size, Hash: whole}, origin, Options{}); err == nil {
			t.Error("a log without " + what)
		}
		w.entries = all
	}
	failing := errors.New("the disk is gone")
	if _, err := reconcile(token, func(yield func(*audit.Record, error) bool) { yield(nil, failing) }, tlog.Tree{N: size, Hash: whole}, origin, Options{}); !errors.Is(err, failing) {
		t.Error(err)
	}
}

// The same life under records that tell less: an honest vault leaves nothing over, and one use too many shows.
func TestCounted(t *testing.T) {
	for _, d := range []detail{merged, counted, canaries} {
		for _, clock := range []bool{true, false} {
			if d == canaries && !clock {
				continue
			}
			for _, surplus := range []int{0, 2} {
				w := newWorld(t)
				w.life(func() {
					for range surplus {
						w.derive(name(resident, "phone"), false)
					}
				})
				token := must(ReadSpy(strings.NewReader(w.trace.String()), time.UTC))
				token.detail = d
				if !clock {
					token.first, token.last = time.Time{}, time.Time{}
					for _, o := range token.ops {
						o.at = time.Time{}
					}
				}
				r, err := w.against(token)
				if err != nil {
					t.Fatal(err)
				}
				want := surplus
				if d == merged && surplus > 0 { // one may be the load of a sealed key that was loaded already
					want--
				}
				if r.Counts[Unlogged] != uint64(want) || r.Clean != (surplus == 0) {
					t.Errorf("detail %d, clock %v, %d too many: %v %+v", d, clock, surplus, r.Counts, r.Findings)
				}
			}
		}
	}
}

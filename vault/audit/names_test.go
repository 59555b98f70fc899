package audit

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
)

// business is somebody enrolled under a name.
func (w *world) business(name string) *person {
	w.seed++
	p := &person{w: w, seed: w.seed, key: envelope.NewPrivateKey((*[64]byte)(filled(64, 100+w.seed))), pseudo: policies.Pseudonym{w.seed}}
	e := must(policies.Sign(p.key, &policies.Identity{
		Header: policies.NewHeader("identity", w.now), Kind: policies.KindBusiness, Name: name, SigningKey: p.key.Public().Bytes(),
		KEMKey: filled(policies.KEMPublicKeySize, 1), LoginKey: filled(policies.KEMPublicKeySize, 2), RecoveryHash: policies.HashKey(recoveryKey(w.seed).Public().Bytes()),
	}))
	p.id = policies.IdentityID(e.Hash)
	w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryIdentity, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{Document: e.Hash, Identity: p.id, Pseudo: p.pseudo}, e.Raw)
	return p
}

// vouch is an entry that the operator vouched for somebody. key signs: the ceremony's, if the vault is honest.
func (w *world) vouch(p *person, name string, serial uint64, key *envelope.PrivateKey, bend func(*names.Voucher)) uint64 {
	d := &names.Voucher{
		Header: policies.NewHeader("voucher", w.now), Audience: w.doc.Vault, Identity: p.id, Name: name, Serial: serial, NotBefore: w.now.Unix(), Expires: w.now.Unix() + 86400,
	}
	if bend != nil {
		bend(d)
	}
	e := must(policies.Sign(key, d))
	return w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryVoucher, Reader: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Identity: p.id, Document: e.Hash, Expires: d.Expires, Note: "vouched for",
	}, e.Raw)
}

// TestRecheckOfVouchers: of a vault that takes a voucher which the operator did not sign, or for a name that looks like another's, that entry is listed.
func TestRecheckOfVouchers(t *testing.T) {
	operator := envelope.NewPrivateKey((*[64]byte)(filled(64, 1))) // newVault
	for _, c := range []struct {
		name, text string
		act        func(w *world, acme, twin *person) uint64 // returns the entry that is listed
	}{
		{"honest ones", "", func(w *world, acme, twin *person) uint64 {
			w.vouch(acme, "Acme", 1, operator, nil)
			w.vouch(acme, "Acme", 2, operator, func(d *names.Voucher) { d.NotBefore, d.Expires, d.Withdrawn = 0, 0, true })
			w.vouch(twin, "ACME", 3, operator, nil)
			w.tick(24 * time.Hour)
			w.vouch(acme, "Acme", 4, operator, nil)
			return 0
		}},
		{"somebody else's signature", "not signed by the ceremony key", func(w *world, acme, twin *person) uint64 {
			return w.vouch(acme, "Acme", 1, acme.key, nil)
		}},
		{"another name", "calls itself something else", func(w *world, acme, twin *person) uint64 {
			return w.vouch(acme, "Globex", 1, operator, nil)
		}},
		{"an older serial number", "there was 2 before", func(w *world, acme, twin *person) uint64 {
			w.vouch(acme, "Acme", 2, operator, nil)
			return w.vouch(acme, "Acme", 1, operator, nil)
		}},
		{"another vault's", "another vault", func(w *world, acme, twin *person) uint64 {
			return w.vouch(acme, "Acme", 1, operator, func(d *names.Voucher) { d.Audience[0]++ })
		}},
		{"a name that looks like another", "looks like", func(w *world, acme, twin *person) uint64 {
			w.vouch(acme, "Acme", 1, operator, nil)
			return w.vouch(twin, "ACME", 1, operator, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			entry := c.act(w, w.business("Acme"), w.business("ACME"))
			report := w.recheck(t, Range{})
			if c.text == "" {
				if report.Documents.Count != 0 {
					t.Fatalf("%s", report.Bytes())
				}
				return
			}
			if report.Documents.Count != 1 {
				t.Fatalf("%s", report.Bytes())
			}
			f := report.Documents.Listed[0]
			if f.Index != entry || len(f.Reasons) != 1 || f.Reasons[0].Code != ReasonVoucher || !strings.Contains(f.Reasons[0].Text, c.text) {
				t.Errorf("entry %d: %+v, want entry %d", f.Index, f.Reasons, entry)
			}
		})
	}
}

// giveUp is an entry that a reader gave fields of an owner's grant up.
func (p *person) giveUp(o *person, key *envelope.PrivateKey, g *policies.Grant, fields ...policies.Field) uint64 {
	d := &succession.Renunciation{Header: policies.NewHeader("renunciation", p.w.now), Audience: p.w.doc.Vault, Reader: p.reader(), Owner: o.owner()}
	for _, f := range fields {
		d.Items = append(d.Items, policies.RevokedItem{Grant: g.ID, Field: f, Author: o.author()})
	}
	e := must(policies.Sign(key, d))
	return p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryGivenUp, Owner: o.pseudo, Reader: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: o.owner(), Reader: p.reader(), Document: e.Hash, Items: d.Items,
	}, e.Raw)
}

// TestRecheckOfRenunciations: what was given up is not read any more; a release under it is not justified. Nobody else gives it up.
func TestRecheckOfRenunciations(t *testing.T) {
	w := newWorld()
	o, r, other := w.enrol(), w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, nil, "phone")
	theirs := o.grant(other, o.key, nil, "phone")
	s, them := r.open(r.key, nil), other.open(other.key, nil)
	s.read(o, g, "phone", nil)
	r.giveUp(o, r.key, g, "phone")
	them.read(o, theirs, "phone", nil)
	if report := w.recheck(t, Range{}); report.Documents.Count != 0 || report.Unjustified.Count != 0 || report.Justified != 2 {
		t.Fatalf("an honest one: %s", report.Bytes())
	}
	entry, _ := s.read(o, g, "phone", nil)
	report := w.recheck(t, Range{})
	if report.Unjustified.Count != 1 || report.Unjustified.Listed[0].Index != entry || report.Unjustified.Listed[0].Reasons[0].Code != string(policies.CodeRevoked) {
		t.Errorf("a release of what was given up: %s", report.Bytes())
	}

	for what, act := range map[string]func(w *world, o, r, other *person, g *policies.Grant) uint64{
		"another's grant": func(w *world, o, r, other *person, g *policies.Grant) uint64 {
			return other.giveUp(o, other.key, g, "phone")
		},
		"another's key": func(w *world, o, r, other *person, g *policies.Grant) uint64 {
			return r.giveUp(o, other.key, g, "phone")
		},
	} {
		w := newWorld()
		o, r, other := w.enrol(), w.enrol(), w.enrol()
		o.publish(nil)
		g := o.grant(r, o.key, nil, "phone")
		entry := act(w, o, r, other, g)
		if report := w.recheck(t, Range{}); report.Documents.Count != 1 || report.Documents.Listed[0].Index != entry {
			t.Errorf("%s: %s", what, report.Bytes())
		}
	}
}

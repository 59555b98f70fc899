package audit

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/succession"
)

// recoveryKey is the one of the person of a seed.
func recoveryKey(seed byte) *envelope.PrivateKey {
	return envelope.NewPrivateKey((*[64]byte)(filled(64, 180+seed)))
}

func newKey(seed byte) *envelope.PrivateKey {
	return envelope.NewPrivateKey((*[64]byte)(filled(64, 230+seed)))
}

// succeed gives a person new keys, those of their second generation.
func (p *person) succeed(authority *envelope.PrivateKey, bend func(*succession.Document)) uint64 {
	d := &succession.Document{
		Header: policies.NewHeader("succession", p.w.now), Audience: p.w.doc.Vault, Identity: p.id, Link: p.link, Generation: 2, Previous: policies.Hash(p.id),
		SigningKey: newKey(p.seed).Public().Bytes(), KEMKey: filled(policies.KEMPublicKeySize, 7), LoginKey: filled(policies.KEMPublicKeySize, 8),
		RecoveryHash: policies.Hash{5}, RecoveryKey: authority.Public().Bytes(), Reason: succession.Lost,
	}
	if bend != nil {
		bend(d)
	}
	e := must(succession.Sign(d, newKey(p.seed), authority))
	p.took(d.Seq, e.Hash)
	return p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntrySuccession, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: p.owner(), Identity: p.id, Document: e.Hash, Seq: d.Seq, Version: d.Generation,
	}, e.Raw)
}

// notice announces keys, or takes that back.
func (p *person) notice(successor policies.Hash) policies.Hash {
	d := &succession.Notice{Header: policies.NewHeader("succession-notice", p.w.now), Audience: p.w.doc.Vault, Identity: p.id, Link: p.link, Successor: successor}
	e := must(policies.Sign(p.key, d))
	p.took(d.Seq, e.Hash)
	p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryNotice, Owner: p.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: p.owner(), Identity: p.id, Document: e.Hash, Seq: d.Seq,
	}, e.Raw)
	return e.Hash
}

// TestRecheckOfSuccessions: which key was in force when is decided anew. Of a vault that takes a document of a replaced key, or new keys of somebody who
// may not decide them, that entry is listed, and no other.
func TestRecheckOfSuccessions(t *testing.T) {
	type scene struct {
		*world
		o, r *person
		g    *policies.Grant
		s    *opened
	}
	// planned is what a notice of the person's new keys announces.
	planned := func(p *person) policies.Hash {
		d := &succession.Document{Identity: p.id, SigningKey: newKey(p.seed).Public().Bytes(), KEMKey: filled(policies.KEMPublicKeySize, 7), LoginKey: filled(policies.KEMPublicKeySize, 8), RecoveryHash: policies.Hash{5}}
		return d.Successor()
	}
	announced := func(hash policies.Hash) func(*succession.Document) {
		return func(d *succession.Document) { d.RecoveryKey, d.Notice = nil, hash }
	}
	for _, c := range []struct {
		name, code, text string
		act              func(w *scene) uint64 // returns the entry that is listed
	}{
		{"an honest one, of the owner and of the reader", "", "", func(w *scene) uint64 {
			w.o.succeed(recoveryKey(w.o.seed), nil)
			w.o.key = newKey(w.o.seed)
			w.o.publish(nil)
			w.s.read(w.o, w.g, "phone", func(x *reading) { x.details.Version = 2 })
			w.r.succeed(recoveryKey(w.r.seed), nil)
			w.r.open(newKey(w.r.seed), nil).read(w.o, w.g, "phone", func(x *reading) { x.details.Version = 2 })
			return 0
		}},
		{"one that was announced", "", "", func(w *scene) uint64 {
			hash := w.o.notice(planned(w.o))
			w.tick(succession.Wait)
			w.o.succeed(w.o.key, announced(hash))
			return 0
		}},
		{"announced too late", ReasonSuccession, "not announced", func(w *scene) uint64 {
			hash := w.o.notice(planned(w.o))
			w.tick(succession.Wait - 2*time.Minute)
			return w.o.succeed(w.o.key, announced(hash))
		}},
		{"announced and taken back", ReasonSuccession, "not announced", func(w *scene) uint64 {
			hash := w.o.notice(planned(w.o))
			w.o.notice(policies.Hash{})
			w.tick(succession.Wait)
			return w.o.succeed(w.o.key, announced(hash))
		}},
		{"other keys than announced", ReasonSuccession, "not announced", func(w *scene) uint64 {
			hash := w.o.notice(policies.Hash{1})
			w.tick(succession.Wait)
			return w.o.succeed(w.o.key, announced(hash))
		}},
		{"another recovery key", ReasonSuccession, "another recovery key", func(w *scene) uint64 {
			return w.o.succeed(recoveryKey(w.r.seed), nil)
		}},
		{"the signing key where a notice is named", ReasonSuccession, "not signed", func(w *scene) uint64 {
			hash := w.o.notice(planned(w.o))
			w.tick(succession.Wait)
			return w.o.succeed(recoveryKey(w.o.seed), announced(hash))
		}},
		{"a generation left out", ReasonSuccession, "generation 3", func(w *scene) uint64 {
			return w.o.succeed(recoveryKey(w.o.seed), func(d *succession.Document) { d.Generation = 3 })
		}},
		{"a manifest of the replaced key", ReasonHeadSignature, "not signed by its author", func(w *scene) uint64 {
			w.o.succeed(recoveryKey(w.o.seed), nil)
			w.o.publish(nil)
			return uint64(len(w.leaves) - 1)
		}},
		{"a session of the replaced key", ReasonSessionSignature, "not signed by the reader", func(w *scene) uint64 {
			w.r.succeed(recoveryKey(w.r.seed), nil)
			w.r.open(w.r.key, nil)
			return uint64(len(w.leaves) - 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &scene{world: newWorld()}
			w.o, w.r = w.enrol(), w.enrol()
			w.o.publish(nil)
			w.g = w.o.grant(w.r, w.o.key, nil, "phone")
			w.s = w.r.open(w.r.key, nil)
			w.s.read(w.o, w.g, "phone", nil)
			entry := c.act(w)
			report := w.recheck(t, Range{})
			if report.Unjustified.Count != 0 || report.Justified != report.Releases || report.Releases == 0 {
				t.Errorf("releases: %s", report.Bytes())
			}
			switch {
			case c.code == "" && report.Documents.Count != 0, c.code != "" && report.Documents.Count != 1:
				t.Fatalf("%s", report.Bytes())
			case c.code == "":
				return
			}
			f := report.Documents.Listed[0]
			if f.Index != entry || len(f.Reasons) != 1 || f.Reasons[0].Code != c.code || !strings.Contains(f.Reasons[0].Text, c.text) {
				t.Errorf("entry %d: %+v, want entry %d", f.Index, f.Reasons, entry)
			}
		})
	}
	// Nor is one under a grant that the reader suspended; under a newer one it is.
	w := newWorld()
	o, r := w.enrol(), w.enrol()
	o.publish(nil)
	g := o.grant(r, o.key, nil, "phone")
	d := &succession.Suspension{Header: policies.NewHeader("suspension", w.now), Audience: w.doc.Vault, Reader: r.reader(), Link: r.link}
	e := must(policies.Sign(r.key, d))
	w.add(w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntrySuspension, Reader: r.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{Reader: r.reader(), Identity: r.id, Document: e.Hash, Seq: d.Seq}, e.Raw)
	s := r.open(r.key, nil)
	entry, _ := s.read(o, g, "phone", nil)
	s.read(o, o.grant(r, o.key, nil, "phone"), "phone", nil)
	report := w.recheck(t, Range{})
	if report.Documents.Count != 0 || report.Unjustified.Count != 1 || report.Unjustified.Listed[0].Index != entry || report.Unjustified.Listed[0].Reasons[0].Code != string(policies.CodeSuspended) {
		t.Errorf("a release under a suspended grant: %s", report.Bytes())
	}

	// A release in a session that the replaced key opened is not justified, nor one to a reader who closed the account.
	for _, end := range []func(*person){func(r *person) { r.succeed(recoveryKey(r.seed), nil) }, func(r *person) { r.close(r.key) }} {
		w = newWorld()
		o, r = w.enrol(), w.enrol()
		o.publish(nil)
		g = o.grant(r, o.key, nil, "phone")
		s = r.open(r.key, nil)
		end(r)
		entry, _ = s.read(o, g, "phone", nil)
		report = w.recheck(t, Range{})
		if report.Unjustified.Count != 1 || report.Unjustified.Listed[0].Index != entry || report.Unjustified.Listed[0].Reasons[0].Code != string(policies.CodeSession) {
			t.Errorf("a release in an ended session: %s", report.Bytes())
		}
	}
}

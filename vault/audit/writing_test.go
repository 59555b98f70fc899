package audit

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/writing"
)

// pen is somebody who writes for an owner.
type pen struct {
	*person
	o        *person
	version  uint64
	manifest policies.Hash
}

func (p *person) letWrite(who *person, key *envelope.PrivateKey, bend func(*writing.Grant), fields ...policies.Field) *writing.Grant {
	g := &writing.Grant{
		Header: policies.NewHeader("write-grant", p.w.now), Audience: p.w.doc.Vault, Owner: p.owner(), Link: p.link, Writer: who.author(), Purpose: "upkeep",
		NotBefore: p.w.now.Unix() - 60, Expires: p.w.now.Unix() + 3600,
	}
	for _, f := range fields {
		g.Fields = append(g.Fields, writing.Field{Field: f, Epoch: 1})
	}
	if bend != nil {
		bend(g)
	}
	g.Sealed = filled(policies.KEMCiphertextSize+33*len(g.Fields)+16, 5)
	e := must(policies.Sign(key, g))
	p.took(g.Seq, e.Hash)
	p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryWriteGrant, Owner: p.pseudo, Reader: who.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: g.Owner, Reader: who.reader(), Author: g.Writer, Grant: g.ID, Document: e.Hash, Seq: g.Seq,
	}, e.Raw)
	return g
}

func (p *person) endWriting(who *pen, key *envelope.PrivateKey, kept policies.Hash, g *writing.Grant, fields ...policies.Field) {
	d := &writing.End{
		Header: policies.NewHeader("write-end", p.w.now), Audience: p.w.doc.Vault, Owner: p.owner(), Link: p.link, Writer: who.author(),
		Last: writing.Last{Version: who.version, Manifest: who.manifest},
	}
	for _, f := range fields {
		d.Items = append(d.Items, writing.Ended{Grant: g.ID, Field: f, Kept: kept})
	}
	e := must(policies.Sign(key, d))
	p.took(d.Seq, e.Hash)
	p.w.add(p.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryWriteEnd, Owner: p.pseudo, Reader: who.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: d.Owner, Reader: who.reader(), Author: d.Writer, Document: e.Hash, Seq: d.Seq,
	}, e.Raw)
}

// write publishes for the owner. key signs: the writer's, if the vault is honest.
func (n *pen) write(key *envelope.PrivateKey) uint64 {
	m := &policies.Manifest{
		Header: policies.NewHeader("manifest", n.w.now), Audience: n.w.doc.Vault, Owner: n.o.owner(), Author: n.author(),
		Link: policies.Link{Seq: n.version + 1, Prev: n.manifest}, Version: n.version + 1, PrevManifest: n.manifest, TreeSize: 1, Root: policies.Hash{8},
	}
	e := must(policies.Sign(key, m))
	n.version, n.manifest = m.Version, e.Hash
	return n.w.add(n.w.tick(time.Millisecond), evidence.Entry{Kind: evidence.EntryManifest, Owner: n.o.pseudo, Reader: n.pseudo, Outcome: policies.CodeAccepted}, &evidence.Details{
		Owner: m.Owner, Reader: n.reader(), Author: m.Author, Document: e.Hash, Version: m.Version, Seq: m.Seq,
	}, e.Raw)
}

func (n *pen) leaf() policies.Hash { return policies.Hash{n.manifest[0], byte(n.version), 7} }

// readFrom releases what the pen wrote.
func (o *opened) readFrom(n *pen, g *policies.Grant, f policies.Field, bend func(*reading)) uint64 {
	i, _ := o.read(n.o, g, f, func(x *reading) {
		x.request.Items[0].Author = n.author()
		x.details.Author, x.details.Head, x.details.Version, x.details.Leaf = n.author(), n.manifest, n.version, n.leaf()
		if bend != nil {
			bend(x)
		}
	})
	return i
}

// What others wrote and the vault released is justified by the owner's write grant, or it is found.
func TestRecheckOfWriters(t *testing.T) {
	type scene struct {
		*world
		o, r *person
		n    *pen
		g    *policies.Grant
		s    *opened
		may  *writing.Grant
	}
	for _, c := range []struct {
		name string
		code string // of the release; "": it is justified
		text string
		docs int // documents that are found besides
		act  func(w *scene) uint64
	}{
		{"honest", "", "", 0, func(w *scene) uint64 { w.n.write(w.n.key); return w.s.readFrom(w.n, w.g, "phone", nil) }},
		{"honest, the end kept it", "", "", 0, func(w *scene) uint64 {
			w.n.write(w.n.key)
			w.o.endWriting(w.n, w.o.key, w.n.leaf(), w.may, "phone")
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"an end that a newer grant takes the place of, and the newest is named", "", "", 0, func(w *scene) uint64 {
			w.n.write(w.n.key)
			w.o.letWrite(w.n.person, w.o.key, nil, "phone")
			w.n.write(w.n.key)
			w.o.endWriting(w.n, w.o.key, w.n.leaf(), w.may, "phone")
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"an end that a newer grant takes the place of, and an older is named", "", "", 1, func(w *scene) uint64 {
			w.n.write(w.n.key)
			w.o.letWrite(w.n.person, w.o.key, nil, "phone")
			older := *w.n
			w.n.write(w.n.key)
			w.o.endWriting(&older, w.o.key, older.leaf(), w.may, "phone")
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"an end that names a manifest that never was", "", "", 1, func(w *scene) uint64 {
			w.n.write(w.n.key)
			w.o.letWrite(w.n.person, w.o.key, nil, "phone")
			other := *w.n
			other.manifest = policies.Hash{9, 9}
			w.o.endWriting(&other, w.o.key, w.n.leaf(), w.may, "phone")
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"an end that names a manifest that is still to come", "", "", 1, func(w *scene) uint64 {
			w.n.write(w.n.key)
			next := *w.n
			next.version++
			w.o.endWriting(&next, w.o.key, w.n.leaf(), w.may, "phone")
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"no write grant", "no_write_grant", "written by", 1, func(w *scene) uint64 {
			n := &pen{person: w.enrol(), o: w.o}
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Fields[0].Author = n.author() }, "phone")
			n.write(n.key)
			return w.s.readFrom(n, g, "phone", nil)
		}},
		{"a field beyond it", "no_write_grant", "written by", 0, func(w *scene) uint64 {
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Fields[0].Author = w.n.author() }, "mail")
			w.n.write(w.n.key)
			return w.s.readFrom(w.n, g, "mail", nil)
		}},
		{"another epoch", "no_write_grant", "written by", 0, func(w *scene) uint64 {
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Fields[0].Author, g.Fields[0].Epoch = w.n.author(), 2 }, "phone")
			w.n.write(w.n.key)
			return w.s.readFrom(w.n, g, "phone", func(x *reading) { x.details.Epoch = 2 })
		}},
		{"published after the end", "write_ended", "written by", 1, func(w *scene) uint64 {
			w.o.endWriting(w.n, w.o.key, policies.Hash{}, w.may, "phone")
			w.n.write(w.n.key)
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"another leaf than the end kept", "write_ended", "written by", 0, func(w *scene) uint64 {
			w.n.write(w.n.key)
			w.o.endWriting(w.n, w.o.key, policies.Hash{1}, w.may, "phone")
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"published when it had expired", "write_ended", "written by", 1, func(w *scene) uint64 {
			w.tick(2 * time.Hour)
			w.s = w.r.open(w.r.key, nil)
			w.n.write(w.n.key)
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"published before it begins", "no_write_grant", "written by", 1, func(w *scene) uint64 {
			n := &pen{person: w.enrol(), o: w.o}
			w.o.letWrite(n.person, w.o.key, func(g *writing.Grant) { g.NotBefore = w.now.Unix() + 600 }, "phone")
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Fields[0].Author = n.author() }, "phone")
			n.write(n.key)
			return w.s.readFrom(n, g, "phone", nil)
		}},
		{"a version that no manifest has", "wrong_leaf", "written by", 0, func(w *scene) uint64 {
			w.n.write(w.n.key)
			return w.s.readFrom(w.n, w.g, "phone", func(x *reading) { x.details.Version = 9 })
		}},
		{"a manifest that the writer did not sign", ReasonHeadSignature, "not signed by its author", 1, func(w *scene) uint64 {
			w.n.write(w.o.key)
			return w.s.readFrom(w.n, w.g, "phone", nil)
		}},
		{"a write grant that the owner did not sign", ReasonWriteGrant, "not signed by the owner", 1, func(w *scene) uint64 {
			n := &pen{person: w.enrol(), o: w.o}
			w.o.letWrite(n.person, n.key, nil, "phone")
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Fields[0].Author = n.author() }, "phone")
			n.write(n.key)
			return w.s.readFrom(n, g, "phone", nil)
		}},
		{"a write grant that is not the next document", ReasonGrantChain, "the owner's newest was", 1, func(w *scene) uint64 {
			n := &pen{person: w.enrol(), o: w.o}
			w.o.letWrite(n.person, w.o.key, func(g *writing.Grant) { g.Seq += 3 }, "phone")
			g := w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Fields[0].Author = n.author() }, "phone")
			n.write(n.key)
			return w.s.readFrom(n, g, "phone", nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &scene{world: newWorld()}
			w.o, w.r = w.enrol(), w.enrol()
			w.n = &pen{person: w.enrol(), o: w.o}
			w.o.publish(nil)
			w.may = w.o.letWrite(w.n.person, w.o.key, nil, "phone")
			w.g = w.o.grant(w.r, w.o.key, func(g *policies.Grant) { g.Fields[0].Author = w.n.author() }, "phone")
			w.s = w.r.open(w.r.key, nil)
			bad := c.act(w)
			report := w.recheck(t, Range{})
			if report.Releases != 1 || report.Unchecked.Count != 0 || int(report.Documents.Count) != c.docs {
				t.Fatalf("%s", report.Bytes())
			}
			if c.code == "" {
				if report.Unjustified.Count != 0 {
					t.Fatalf("%s", report.Bytes())
				}
				return
			}
			if report.Unjustified.Count != 1 || report.Unjustified.Listed[0].Index != bad {
				t.Fatalf("%s", report.Bytes())
			}
			found := false
			for _, r := range report.Unjustified.Listed[0].Reasons {
				found = found || r.Code == c.code && strings.Contains(r.Text, c.text)
			}
			if !found {
				t.Errorf("no %s (%s) among %+v", c.code, c.text, report.Unjustified.Listed[0].Reasons)
			}
		})
	}
}

package main

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/tests/model/reference"
)

// meeting is a person who reads another one.
type meeting struct{ person, of string }

// meetings are all that a script takes.
func (s *Script) meetings() (out []meeting) {
	for i := range s.Lines {
		l := &s.Lines[i]
		m := meeting{l.Reader, name(l.Who)}
		if l.Do == reference.Ask || l.Do == reference.GiveUp {
			m.person = m.of
			m.of, _, _ = strings.Cut(l.Fields[0], ":")
		}
		if slices.Contains(s.Owners, m.person) && slices.Contains(s.Owners, m.of) && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	return out
}

// persons are all who read others.
func (s *Script) persons() (out []string) {
	for _, m := range s.meetings() {
		if !slices.Contains(out, m.person) {
			out = append(out, m.person)
		}
	}
	return out
}

// meet has a person invite another one, who accepts.
func (p *play) meet(ctx context.Context, m meeting) error {
	person, of := p.devices[m.person+"/1"].owner, p.devices[m.of+"/1"].owner
	link, err := person.InvitePerson(m.of, time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	if err := of.Accept(ctx, link, m.person); err != nil {
		return err
	}
	for _, o := range []*client.Owner{person, of} {
		if _, err := o.Receive(ctx); err != nil {
			return err
		}
	}
	return nil
}

// place is a field of somebody.
type place struct{ owner, field string }

// pieces are what a device keeps of what other people let it read.
func (p *play) pieces(d *device) (map[place]reference.Item, error) {
	var state struct {
		Pieces []struct {
			Owner   policies.OwnerID  `json:"owner"`
			Field   policies.Field    `json:"field"`
			Author  policies.AuthorID `json:"author"`
			Version uint64            `json:"version"`
			Value   []byte            `json:"value"`
		} `json:"pieces"`
	}
	stored, err := d.drawer.Load()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(stored, &state); err != nil {
		return nil, err
	}
	out := map[place]reference.Item{}
	for _, have := range state.Pieces {
		owner := p.names[policies.AuthorID(have.Owner)]
		it := reference.Item{Owner: owner, Field: string(have.Field), Author: p.author(owner, have.Author), Result: reference.Kept, Version: have.Version}
		it.Number = number(owner, it.Field, have.Value)
		out[place{owner, it.Field}] = it
	}
	return out, nil
}

// contacts has a person look at what is kept, and holds what the device says against what it stores.
func (p *play) contacts(d *device, e *reference.Event) error {
	kept, err := p.pieces(d)
	if err != nil {
		return err
	}
	people, err := d.owner.People()
	answer(e, err)
	for _, person := range people {
		for _, have := range person.Pieces {
			owner := p.names[policies.AuthorID(person.ID)]
			it := kept[place{owner, string(have.Field)}]
			it.Owner, it.Field, it.Result, it.Version, it.Number = owner, string(have.Field), reference.Kept, have.Version, number(owner, string(have.Field), have.Value)
			e.Items = append(e.Items, it)
			delete(kept, place{owner, it.Field})
		}
	}
	for _, it := range kept {
		it.Result = "hidden"
		e.Items = append(e.Items, it)
	}
	return nil
}

// refresh has a person read all that others let them, and notes of each field of theirs what came of it.
func (p *play) refresh(ctx context.Context, d *device, e *reference.Event) error {
	before, err := p.pieces(d)
	if err != nil {
		return err
	}
	e.Start = time.Now().UnixNano()
	gone, refused, err := d.owner.Refresh(ctx)
	answer(e, err)
	e.End = time.Now().UnixNano()
	kept, err := p.pieces(d)
	if err != nil {
		return err
	}
	why := map[place]string{}
	for _, v := range append(gone, refused...) {
		why[place{p.names[policies.AuthorID(v.Owner)], string(v.Field)}] = code(v.Err)
	}
	for _, m := range p.script.meetings() {
		for _, f := range p.fields() {
			if m.person != name(e.Who) {
				continue
			}
			at := place{m.of, f}
			had := before[at]
			it := reference.Item{Owner: m.of, Field: f, Known: had.Version, By: had.Author}
			have, is := kept[at]
			switch {
			case e.Result != reference.OK:
			case why[at] != "":
				it.Result = why[at]
			case !is:
				it.Result = reference.None
			case have.Version == had.Version && have.Author == had.Author:
				it.Result, it.Author, it.Version = string(policies.CodeUnchanged), have.Author, have.Version
			default:
				it.Result, it.Author, it.Version, it.Number = string(policies.CodeReleased), have.Author, have.Version, have.Number
			}
			e.Items = append(e.Items, it)
		}
	}
	return nil
}

// people are somebody who asks another person, reads, and keeps what was read, with everything that ends it: withdrawn, changed, given up, blocked; and daemons killed and
// others at work in between.
func (d dice) people(s *Script, fields []string, sealed bool) (out []Line) {
	at := d.IntN(len(s.Owners))
	person, of := s.Owners[at], s.Owners[(at+1)%len(s.Owners)]
	device := func(name string) string { return name + "/" + d.one("1", "1", "2") }
	add := func(l Line) {
		switch {
		case d.IntN(7) == 0 && len(out) > 0 && l.Do != reference.Contacts:
			out = append(out, Line{Who: d.one("vault", "storefront", "both"), Do: reference.Kill, After: d.ms(1, 40), Length: d.ms(1, 60)})
			l.With = true
		case d.IntN(7) == 0:
			out = d.beside(out, &l, s, fields, sealed)
		}
		if d.IntN(16) == 0 && l.Do != reference.Contacts && l.Do != reference.Block && l.Do != reference.Unblock {
			l.Cut = d.ms(1, 60)
		}
		out = append(out, l)
	}
	ofTheirs := func() (out []string) {
		for _, f := range d.some(fields) {
			out = append(out, of+":"+f)
		}
		return out
	}
	grant := Line{Who: device(of), Do: reference.Grant, Reader: person, Fields: d.some(fields)}
	if d.IntN(3) == 0 {
		grant.Terms.For = time.Duration(1+d.IntN(2)) * time.Second
	} else if d.IntN(2) == 0 {
		grant.Terms.Limit = 1 + d.IntN(4)
	}
	ask := Line{Who: device(person), Do: reference.Ask, Fields: ofTheirs()}
	answer := Line{Who: device(of), Do: reference.Answer, Reader: person, Fields: d.some(fields)}
	if d.IntN(2) == 0 {
		answer.Fields = nil
		for _, f := range ask.Fields {
			answer.Fields = append(answer.Fields, strings.TrimPrefix(f, of+":"))
		}
	}
	if d.IntN(3) > 0 {
		add(ask)
		add(answer)
		add(Line{Who: ask.Who, Do: reference.Hear})
	} else {
		add(grant)
	}
	reader := device(person)
	add(Line{Who: reader, Do: reference.Refresh})
	for range 3 + d.IntN(5) {
		switch d.IntN(13) {
		case 0:
			add(grant) // the terms change
		case 1:
			add(Line{Who: device(of), Do: reference.Stop, Reader: person, Fields: d.some(fields)})
			add(Line{Who: device(person), Do: reference.Hear})
		case 2:
			add(Line{Who: device(of), Do: reference.Revoke, Reader: person, Keep: d.IntN(2) == 0})
		case 3:
			add(Line{Who: device(person), Do: reference.GiveUp, Fields: ofTheirs()[:1]})
		case 4:
			add(Line{Who: answer.Who, Do: d.one(reference.Block, reference.Unblock), Reader: person})
			add(ask)
			add(answer)
		case 5:
			add(Line{Who: device(of), Do: d.one(reference.Set, reference.Rotate, reference.Remove), Fields: d.some(fields)[:1]})
		case 6:
			add(Line{Who: device(of), Do: reference.Sync})
		case 7:
			add(Line{Who: reader, Do: reference.Restart})
		case 8:
			add(Line{Who: reader, Do: reference.Replace, Attack: d.one("stolen", "lost")})
			if d.IntN(3) > 0 {
				add(Line{Who: device(of), Do: reference.Sync})
			}
			if d.IntN(2) == 0 {
				add(Line{Who: other(reader), Do: reference.Restore})
			}
		default:
			add(Line{Who: device(of), Do: reference.Set, Fields: d.some(fields)})
		}
		add(Line{Who: reader, Do: d.one(reference.Refresh, reference.Refresh, reference.Contacts)})
	}
	return append(out, Line{Who: reader, Do: reference.Contacts})
}

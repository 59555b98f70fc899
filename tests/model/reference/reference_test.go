package reference

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func load(t *testing.T, name string) []Event {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name + ".trace")
	if err != nil {
		t.Fatal(err)
	}
	events, err := ReadTrace(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := WriteTrace(&again, events); err != nil || !bytes.Equal(again.Bytes(), data) {
		t.Fatalf("a trace does not survive being read and written: %v", err)
	}
	return events
}

// clone copies a trace: Check notes in it what it learns.
func clone(events []Event) []Event {
	out := slices.Clone(events)
	for i := range out {
		out[i].Items = slices.Clone(out[i].Items)
	}
	return out
}

// story is a small history that is right, or is not.
type story struct {
	right bool
	make  func(*history)
}

// TestWhatPeopleKeep is TestWhatStatesAllow for one person who reads another.
func TestWhatPeopleKeep(t *testing.T) { tell(t, keepings, whatPeopleKeep()) }

// keepings is what all that people keep begins with: bo has set a field and granted it, and ana has read it once.
func keepings(h *history) {
	h.set(1, 5, "1", OK, 1, "a")
	h.bos(6, 10, 7)
	h.bo(20, 30, Grant, OK)
	h.refresh(40, 50, "1", "released", 0, 1, 7)
}

// TestWhatStatesAllow has small histories, each of which is right or is not.
func TestWhatStatesAllow(t *testing.T) { tell(t, states, whatStatesAllow()) }

// states is what all of them begin with: ana has set two fields, and granted one of them to acme.
func states(h *history) {
	h.set(1, 5, "1", OK, 1, "a", "b")
	h.grant(6, 10, "1", OK, Terms{})
}

// tell holds stories against the model, each with the same beginning.
func tell(t *testing.T, begin func(*history), stories map[string]story) {
	t.Helper()
	for name, s := range stories {
		var h history
		begin(&h)
		s.make(&h)
		if _, violations := Check(h, Rules{}); (len(violations) == 0) != s.right {
			t.Errorf("%s: %v", name, violations)
		}
	}
}

// TestNothingIsPublishedInAClosedAccount has one that the storefront was not told of.
func TestNothingIsPublishedInAClosedAccount(t *testing.T) {
	for _, do := range []string{Set, Remove, Adopt, Reject, Rotate, Grant, GrantWrite, Replace, Announce, Succeed, Thaw} {
		stories := map[string]story{}
		for closed, right := range map[string]bool{Untold: false, NotStopped: true} {
			stories[do+" after "+closed] = story{right, func(h *history) {
				h.letWrite(11, 12, GrantWrite, OK)
				h.write(13, 14, "1", OK, 2)
				if do == Succeed {
					h.announce(15, 16, "2", OK)
				}
				h.kill(20, 30)
				h.close(20, 30, "1", closed)
				h.add(9040, 9050, "ana/2", do, OK, func(e *Event) { e.Reader, e.Fields = "globex", []string{"a"} })
			}}
		}
		tell(t, states, stories)
	}
}

// TestWrongRules holds the right stories against a model that has one of its rules wrong: each finds fault with one of them, at least.
func TestWrongRules(t *testing.T) {
	ofStates, ofPeople := whatStatesAllow(), whatPeopleKeep()
	for _, rule := range reflect.VisibleFields(reflect.TypeFor[Rules]()) {
		var rules Rules
		reflect.ValueOf(&rules).Elem().FieldByIndex(rule.Index).SetBool(true)
		fault := func(begin func(*history), stories map[string]story) bool {
			for _, s := range stories {
				var h history
				begin(&h)
				if s.make(&h); s.right {
					if _, violations := Check(h, rules); len(violations) > 0 {
						return true
					}
				}
			}
			return false
		}
		if !fault(states, ofStates) && !fault(keepings, ofPeople) {
			t.Errorf("%s: no story is of this", rule.Name)
		}
	}
}

func whatPeopleKeep() map[string]story {
	return map[string]story{
		"what was read is kept":          {true, func(h *history) { h.contacts(60, 61, "1", 1, 7) }},
		"not lost":                       {false, func(h *history) { h.contacts(60, 61, "1", 0, 0) }},
		"not another version":            {false, func(h *history) { h.contacts(60, 61, "1", 2, 7) }},
		"nor another value":              {false, func(h *history) { h.contacts(60, 61, "1", 1, 8) }},
		"the other device has nothing":   {true, func(h *history) { h.contacts(60, 61, "2", 0, 0) }},
		"until it reads itself":          {false, func(h *history) { h.contacts(60, 61, "2", 1, 7) }},
		"as it may":                      {true, func(h *history) { h.refresh(60, 62, "2", "released", 0, 1, 7); h.contacts(63, 64, "2", 1, 7) }},
		"a process that ends keeps it":   {true, func(h *history) { h.add(60, 61, "ana/1", Restart, OK, nil); h.contacts(62, 63, "1", 1, 7) }},
		"a device that is made anew not": {true, func(h *history) { h.restore(60, 61, "1"); h.contacts(62, 63, "1", 0, 0) }},
		"what is no news is kept":        {true, func(h *history) { h.refresh(60, 62, "1", "unchanged", 1, 1, 0); h.contacts(63, 64, "1", 1, 7) }},
		"news are read": {true, func(h *history) {
			h.bos(60, 61, 8)
			h.refresh(62, 63, "1", "released", 1, 2, 8)
			h.contacts(64, 65, "1", 2, 8)
		}},
		"and kept": {false, func(h *history) {
			h.bos(60, 61, 8)
			h.refresh(62, 63, "1", "released", 1, 2, 8)
			h.contacts(64, 65, "1", 1, 7)
		}},
		"and not passed over":    {false, func(h *history) { h.bos(60, 61, 8); h.refresh(62, 63, "1", "unchanged", 1, 1, 0) }},
		"what was kept is known": {false, func(h *history) { h.refresh(60, 62, "1", "released", 0, 1, 7) }},
		"what is taken back is gone": {true, func(h *history) {
			h.bo(60, 61, Revoke, OK)
			h.refresh(62, 63, "1", "grant_revoked", 1, 0, 0)
			h.contacts(64, 65, "1", 0, 0)
		}},
		"and not kept": {false, func(h *history) {
			h.bo(60, 61, Revoke, OK)
			h.refresh(62, 63, "1", "grant_revoked", 1, 0, 0)
			h.contacts(64, 65, "1", 1, 7)
		}},
		"which is told":                  {false, func(h *history) { h.bo(60, 61, Revoke, OK); h.refresh(62, 63, "1", None, 1, 0, 0) }},
		"once":                           {false, func(h *history) { h.bo(60, 61, Revoke, OK); h.refresh(62, 63, "2", "grant_revoked", 0, 0, 0) }},
		"where there was nothing":        {true, func(h *history) { h.bo(60, 61, Revoke, OK); h.refresh(62, 63, "2", None, 0, 0, 0) }},
		"where there was something":      {false, func(h *history) { h.refresh(62, 63, "2", None, 0, 0, 0) }},
		"it is kept until that is known": {true, func(h *history) { h.bo(60, 61, Revoke, OK); h.contacts(62, 63, "1", 1, 7) }},
		"what the owner takes out is gone too": {true, func(h *history) {
			h.bo(60, 61, Remove, OK)
			h.refresh(62, 63, "1", "not_found", 1, 0, 0)
			h.contacts(64, 65, "1", 0, 0)
		}},
		"what cannot be read now is kept": {true, func(h *history) {
			h.add(60, 61, "bo", Freeze, OK, nil)
			h.refresh(62, 63, "1", "frozen", 1, 0, 0)
			h.contacts(64, 65, "1", 1, 7)
		}},
		"and not gone": {false, func(h *history) {
			h.add(60, 61, "bo", Freeze, OK, nil)
			h.refresh(62, 63, "1", "frozen", 1, 0, 0)
			h.contacts(64, 65, "1", 0, 0)
		}},
		"nor if nobody answers": {false, func(h *history) {
			h.kill(60, 70)
			h.add(61, 69, "ana/1", Refresh, "unavailable", func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Known: 1}} })
			h.contacts(71, 72, "1", 0, 0)
		}},
		"who withdraws has it deleted": {true, func(h *history) { h.bo(60, 61, Stop, OK); h.hear(62, 63, "1"); h.contacts(64, 65, "1", 0, 0) }},
		"when it is heard":             {false, func(h *history) { h.bo(60, 61, Stop, OK); h.hear(62, 63, "1"); h.contacts(64, 65, "1", 1, 7) }},
		"not before":                   {false, func(h *history) { h.bo(60, 61, Stop, OK); h.contacts(62, 63, "1", 0, 0) }},
		"nor before it was said":       {false, func(h *history) { h.hear(57, 58, "1"); h.bo(60, 61, Stop, OK); h.contacts(62, 63, "1", 0, 0) }},
		"nor for a revocation":         {false, func(h *history) { h.bo(60, 61, Revoke, OK); h.hear(62, 63, "1"); h.contacts(64, 65, "1", 0, 0) }},
		"the other device may have heard": {true, func(h *history) {
			h.bo(60, 61, Stop, OK)
			h.hear(62, 63, "2")
			h.hear(64, 65, "1")
			h.contacts(66, 67, "1", 1, 7)
		}},
		"while it is withdrawn, both": {true, func(h *history) { h.bo(60, 70, Stop, OK); h.hear(62, 63, "1"); h.contacts(64, 65, "1", 1, 7) }},
		"who blocks does not hear": {true, func(h *history) {
			h.add(58, 59, "ana/1", Block, OK, func(e *Event) { e.Reader = "bo" })
			h.bo(60, 61, Stop, OK)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 1, 7)
		}},
		"nor for somebody else": {false, func(h *history) {
			h.bo(60, 61, Stop, OK)
			(*h)[len(*h)-1].Reader = "acme"
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 0, 0)
		}},
		"or not, if nobody was reached": {true, func(h *history) {
			h.bo(60, 61, Stop, OK)
			h.kill(62, 63)
			h.hear(62, 63, "1")
			(*h)[len(*h)-1].Result = "unavailable"
			h.contacts(64, 65, "1", 1, 7)
		}},
		"or it was not withdrawn": {true, func(h *history) {
			h.kill(60, 61)
			h.bo(60, 61, Stop, NotStopped)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 1, 7)
		}},
		"whatever the other device heard before it": {false, func(h *history) {
			h.hear(57, 58, "2")
			h.bo(60, 61, Stop, OK)
			h.hear(62, 63, "1")
			h.hear(64, 65, "2")
			h.contacts(66, 67, "1", 1, 7)
		}},
		"or does meanwhile": {false, func(h *history) {
			h.bo(60, 61, Stop, OK)
			h.refresh(61, 62, "2", None, 0, 0, 0)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 1, 7)
		}},
		"or who else is blocked": {false, func(h *history) {
			h.add(58, 59, "ana/1", Block, OK, func(e *Event) { e.Reader = "dora" })
			h.bo(60, 61, Stop, OK)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 1, 7)
		}},
		"keys of which nobody was reached are not shown": {true, func(h *history) {
			h.bos(58, 59, 8)
			h.replace(60, 61, "1", OK)
			h.kill(62, 63)
			h.add(62, 63, "ana/1", Refresh, "unavailable", func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Known: 1}} })
			h.add(64, 65, "bo/1", Sync, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Version: 2, Number: 8}} })
			h.refresh(66, 67, "1", "suspended", 1, 0, 0)
		}},
		"what is given up of another's changes nothing": {false, func(h *history) {
			h.add(60, 61, "ana/1", GiveUp, "no_grant", func(e *Event) { e.Owner, e.Fields = "dora", []string{"a"} })
			h.add(62, 63, "ana/1", GiveUp, "no_grant", func(e *Event) { e.Owner, e.Fields = "bo", []string{"b"} })
			h.contacts(64, 65, "1", 0, 0)
		}},
		"what was asked before is answered, whatever is asked then": {true, func(h *history) {
			h.asks(57, 58)
			h.hear(58, 59, "1")
			h.block(60, 61, Block)
			h.asks(62, 63)
			(*h)[len(*h)-1].About = "2"
			h.answers(64, 65, OK)
		}},
		"what is given up is gone":                  {true, func(h *history) { h.renounce(60, 61, OK); h.contacts(62, 63, "1", 0, 0) }},
		"and not there":                             {false, func(h *history) { h.renounce(60, 61, OK); h.contacts(62, 63, "1", 1, 7) }},
		"nor read again":                            {false, func(h *history) { h.renounce(60, 61, OK); h.refresh(62, 63, "1", "released", 0, 1, 7) }},
		"what was not given up is kept":             {false, func(h *history) { h.renounce(60, 61, "no_grant"); h.contacts(62, 63, "1", 0, 0) }},
		"of a lost answer both":                     {true, func(h *history) { h.kill(60, 61); h.renounce(60, 61, "unavailable"); h.contacts(62, 63, "1", 0, 0) }},
		"as if nothing was":                         {true, func(h *history) { h.kill(60, 61); h.renounce(60, 61, "unavailable"); h.contacts(62, 63, "1", 1, 7) }},
		"with a new root she reads what is no news": {true, func(h *history) { h.replace(60, 61, "1", OK); h.refresh(62, 63, "1", "unchanged", 1, 1, 0) }},
		"not what is": {false, func(h *history) {
			h.bos(58, 59, 8)
			h.replace(60, 61, "1", OK)
			h.refresh(64, 65, "1", "released", 1, 2, 8)
		}},
		"of which she is told": {true, func(h *history) {
			h.replace(60, 61, "1", OK)
			h.bos(62, 63, 8)
			h.refresh(64, 65, "1", "suspended", 1, 0, 0)
		}},
		"until the other has seen it":       {true, func(h *history) { h.shown(); h.refresh(68, 69, "1", "released", 1, 2, 8) }},
		"and then she must":                 {false, func(h *history) { h.shown(); h.refresh(68, 69, "1", "suspended", 1, 0, 0) }},
		"the other device does not read on": {false, func(h *history) { h.replace(60, 61, "1", OK); h.refresh(62, 63, "2", "released", 0, 1, 7) }},
		"one that is made of a replacement that was cut short may be told of it": {true, func(h *history) {
			h.kill(60, 61)
			h.replace(60, 61, "1", "unavailable")
			h.restore(62, 63, "2")
			h.refresh(64, 65, "2", "", 0, 0, 0)
			(*h)[len(*h)-1].Result = "key_replaced"
		}},
		"until it has synced": {false, func(h *history) {
			h.kill(60, 61)
			h.replace(60, 61, "1", "unavailable")
			h.restore(62, 63, "2")
			h.add(64, 65, "ana/2", Sync, OK, func(e *Event) { e.Items = []Item{{Owner: "ana", Field: "a", Version: 1, Number: 1}} })
			h.refresh(66, 67, "2", "", 0, 0, 0)
			(*h)[len(*h)-1].Result = "key_replaced"
		}},
		"who is blocked is not heard": {false, func(h *history) { h.block(60, 61, Block); h.asks(62, 63); h.answers(64, 65, OK) }},
		"and nothing is there":        {true, func(h *history) { h.block(60, 61, Block); h.asks(62, 63); h.answers(64, 65, NotAsked) }},
		"until she is let in": {true, func(h *history) {
			h.block(60, 61, Block)
			h.block(61, 62, Unblock)
			h.asks(63, 64)
			h.answers(65, 66, OK)
		}},
		"who asked before may be": {true, func(h *history) { h.asks(58, 59); h.block(60, 61, Block); h.answers(64, 65, OK) }},
		"whoever blocks can":      {false, func(h *history) { h.add(60, 61, "ana/1", Block, "unavailable", nil) }},
		"a closed account's device is told": {true, func(h *history) {
			h.close(60, 61, "1", OK)
			h.add(62, 63, "ana/2", Refresh, "account_closed", nil)
		}},
		"or is not let in":       {true, func(h *history) { h.close(60, 61, "1", OK); h.add(62, 63, "ana/2", Refresh, "unauthorized", nil) }},
		"not for another reason": {false, func(h *history) { h.close(60, 61, "1", OK); h.add(62, 63, "ana/2", Refresh, "log_stopped", nil) }},
		"whatever it asks for": {true, func(h *history) {
			h.close(60, 61, "1", OK)
			h.add(62, 63, "ana/2", Ask, "account_closed", func(e *Event) { e.Owner = "bo" })
		}},
		"and asks for nothing any more": {false, func(h *history) { h.close(60, 61, "1", OK); h.asks(62, 63) }},
		"or gives up":                   {true, func(h *history) { h.close(60, 61, "1", OK); h.renounce(62, 63, "account_closed") }},
		"and no other":                  {false, func(h *history) { h.add(62, 63, "ana/2", Refresh, "account_closed", nil) }},
		"nor is one kept out":           {false, func(h *history) { h.add(62, 63, "ana/2", Refresh, "unauthorized", nil) }},
		"she hears what was granted":    {true, func(h *history) { h.asks(60, 61); h.answers(62, 63, OK); h.hears(64, 65) }},
		"not before that":               {false, func(h *history) { h.asks(60, 61); h.hears(62, 63); h.answers(64, 65, OK) }},
		"nor what was not":              {false, func(h *history) { h.asks(60, 61); h.answers(62, 63, "wider_than_asked"); h.hears(64, 65) }},
		"keys that she has not shown nobody grants to": {true, func(h *history) {
			h.bos(58, 59, 8)
			h.replace(60, 61, "1", OK)
			h.add(62, 63, "bo/1", Sync, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Version: 2, Number: 8}} })
			h.refresh(64, 65, "1", "suspended", 1, 0, 0)
		}},
		"nothing is given to who is gone": {true, func(h *history) {
			h.close(60, 61, "1", OK)
			h.bo(62, 63, Grant, "party_closed")
		}},
		"nor is anything left to be revoked":              {true, func(h *history) { h.close(60, 61, "1", OK); h.bo(62, 63, Revoke, "no_grant") }},
		"of who is there it is":                           {false, func(h *history) { h.bo(62, 63, Revoke, "no_grant") }},
		"who is not is there":                             {false, func(h *history) { h.bo(62, 63, Grant, "party_closed") }},
		"a root that comes later she need not have shown": {false, func(h *history) { h.shown(); h.refresh(68, 69, "1", "suspended", 1, 0, 0); h.replace(70, 71, "1", OK) }},
		"nor one that came to nothing": {false, func(h *history) {
			h.replace(55, 56, "1", OK)
			h.refresh(57, 58, "1", "unchanged", 1, 1, 0)
			h.replace(59, 60, "1", NoRecovery)
			h.bos(62, 63, 8)
			h.add(66, 67, "bo/1", Sync, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Version: 2, Number: 8}} })
			h.refresh(68, 69, "1", "suspended", 1, 0, 0)
		}},
		"nor does who looks at what is kept show it": {true, func(h *history) {
			h.replace(60, 61, "1", OK)
			h.bos(62, 63, 8)
			h.contacts(64, 65, "1", 1, 7)
			h.add(66, 67, "bo/1", Sync, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Version: 2, Number: 8}} })
			h.refresh(68, 69, "1", "suspended", 1, 0, 0)
		}},
		"or when something is answered": {false, func(h *history) {
			h.bo(60, 61, Stop, OK)
			h.answer(62, 63, OK, nil)
			h.contacts(64, 65, "1", 1, 7)
		}},
		"or nothing is there to be answered": {false, func(h *history) {
			h.bo(60, 61, Stop, OK)
			h.answer(62, 63, NotAsked, nil)
			h.contacts(64, 65, "1", 1, 7)
		}},
		"and if it has, this one has not": {true, func(h *history) {
			h.bo(60, 61, Stop, OK)
			h.hear(62, 63, "2")
			h.hear(64, 65, "1")
			h.contacts(66, 67, "1", 0, 0)
		}},
		"nor for what was not withdrawn": {false, func(h *history) {
			h.rivalOfBo()
			h.bo(60, 61, Stop, NoField)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 0, 0)
		}},
		"nor for another field": {false, func(h *history) {
			h.add(60, 61, "bo/1", Stop, OK, func(e *Event) { e.Reader, e.Fields = "ana", []string{"b"} })
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 0, 0)
		}},
		"whatever is withdrawn besides": {false, func(h *history) {
			h.bo(60, 61, Stop, OK)
			h.kill(62, 63)
			h.bo(62, 63, Stop, NotStopped)
			h.hear(64, 65, "1")
			h.contacts(66, 67, "1", 1, 7)
		}},
		"or who blocks later": {false, func(h *history) {
			h.bo(60, 61, Stop, OK)
			h.hear(62, 63, "1")
			h.blocksBo(64, 65, Block)
			h.contacts(66, 67, "1", 1, 7)
		}},
		"or let in again": {false, func(h *history) {
			h.blocksBo(56, 57, Block)
			h.blocksBo(58, 59, Unblock)
			h.bo(60, 61, Stop, OK)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 1, 7)
		}},
		"even after it was said": {false, func(h *history) {
			h.blocksBo(56, 57, Block)
			h.bo(60, 61, Stop, OK)
			h.blocksBo(61, 62, Unblock)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 1, 7)
		}},
		"unless it was thrown away by then": {true, func(h *history) {
			h.blocksBo(56, 57, Block)
			h.bo(58, 59, Stop, OK)
			h.hear(60, 61, "1")
			h.blocksBo(61, 62, Unblock)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 1, 7)
		}},
		"who lets somebody else in does not": {true, func(h *history) {
			h.blocksBo(56, 57, Block)
			h.add(58, 59, "ana/1", Unblock, OK, func(e *Event) { e.Reader = "dora" })
			h.bo(60, 61, Stop, OK)
			h.hear(62, 63, "1")
			h.contacts(64, 65, "1", 1, 7)
		}},
		"what a closed account let her read is gone too": {true, func(h *history) {
			h.add(60, 61, "bo/1", Close, OK, nil)
			h.refresh(62, 63, "1", "no_grant", 1, 0, 0)
			h.contacts(64, 65, "1", 0, 0)
		}},
		"as is what has expired": {true, func(h *history) {
			h.bo(60, 61, Grant, OK)
			(*h)[len(*h)-1].Terms.For = time.Second
			h.refresh(3000, 3010, "1", "grant_expired", 1, 0, 0)
			h.contacts(3020, 3030, "1", 0, 0)
		}},
		"other fields, and others' fields, are other ones": {true, func(h *history) {
			h.add(60, 61, "ana/1", Refresh, OK, func(e *Event) {
				e.Items = []Item{{Owner: "bo", Field: "a", Result: "unchanged", Known: 1, Version: 1}, {Owner: "bo", Field: "b", Result: None}, {Owner: "dora", Field: "a", Result: None}}
			})
			h.contacts(62, 63, "1", 1, 7)
		}},
		"nor do nothing and no news make something of each other": {false, func(h *history) {
			h.kill(60, 61)
			h.renounce(60, 61, "unavailable")
			h.refresh(62, 63, "1", "unchanged", 1, 1, 0)
			h.contacts(64, 65, "1", 0, 0)
		}},
		"nor the other way round": {false, func(h *history) {
			h.kill(60, 61)
			h.renounce(60, 61, "unavailable")
			h.refresh(62, 63, "1", None, 0, 0, 0)
			h.contacts(64, 65, "1", 1, 7)
		}},
		"what is given up of another field is that alone": {true, func(h *history) {
			h.also("bo", "b")
			h.add(60, 61, "ana/1", GiveUp, OK, func(e *Event) { e.Owner, e.Fields = "bo", []string{"b"} })
			h.contacts(62, 63, "1", 1, 7)
		}},
		"and of somebody else": {true, func(h *history) {
			h.also("dora", "a")
			h.add(60, 61, "ana/1", GiveUp, OK, func(e *Event) { e.Owner, e.Fields = "dora", []string{"a"} })
			h.contacts(62, 63, "1", 1, 7)
		}},
		"to ask for it gives nothing up":         {true, func(h *history) { h.asks(60, 61); h.contacts(62, 63, "1", 1, 7) }},
		"nor does one's own field of that name":  {true, func(h *history) { h.set(60, 61, "1", OK, 2, "a"); h.contacts(62, 63, "1", 1, 7) }},
		"nor is it somebody else's who wrote it": {false, func(h *history) { h.contacts(60, 61, "1", 1, 7); (*h)[len(*h)-1].Items[0].Author = "acme" }},
		"it is shown":                            {false, func(h *history) { h.contacts(60, 61, "1", 1, 7); (*h)[len(*h)-1].Items[0].Result = "hidden" }},
		"whoever looks is told":                  {false, func(h *history) { h.contacts(60, 61, "1", 1, 7); (*h)[len(*h)-1].Result = "unavailable" }},
		"what was never there tells nothing of others": {false, func(h *history) {
			h.add(52, 53, "ana/2", Refresh, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "b", Result: None}} })
			h.bo(60, 90, Revoke, OK)
			h.refresh(62, 63, "1", "grant_revoked", 1, 0, 0)
			h.refresh(64, 65, "2", "released", 0, 1, 7)
		}},
		"who finds nothing tells of what ended it": {false, func(h *history) {
			h.kill(60, 61)
			h.bo(60, 61, Revoke, NotStopped)
			h.refresh(62, 63, "2", None, 0, 0, 0)
			h.refresh(64, 65, "1", "unchanged", 1, 1, 0)
		}},
		"but not of which, if two may have": {true, func(h *history) {
			h.kill(60, 61)
			h.bo(60, 61, Revoke, NotStopped)
			h.add(60, 61, "bo/2", Close, NotStopped, nil)
			h.refresh(62, 63, "2", None, 0, 0, 0)
			h.bos(64, 65, 8)
		}},
		"what was over, and is given up, is kept": {false, func(h *history) {
			h.bo(60, 61, Revoke, OK)
			h.renounce(62, 63, "no_grant")
			h.contacts(64, 65, "1", 0, 0)
		}},
		"who is let in later was blocked": {false, func(h *history) {
			h.block(60, 61, Block)
			h.asks(62, 63)
			h.answers(64, 65, OK)
			h.block(66, 67, Unblock)
		}},
		"and who is blocked once more": {false, func(h *history) {
			h.block(60, 61, Block)
			h.asks(62, 63)
			h.block(64, 65, Block)
			h.answers(66, 67, OK)
		}},
		"not who is not": {true, func(h *history) {
			h.add(60, 61, "bo/1", Block, OK, func(e *Event) { e.Reader = "dora" })
			h.asks(62, 63)
			h.answers(64, 65, OK)
		}},
		"nor where somebody else is let in": {false, func(h *history) {
			h.block(58, 59, Block)
			h.add(60, 61, "bo/1", Unblock, OK, func(e *Event) { e.Reader = "dora" })
			h.asks(62, 63)
			h.answers(64, 65, OK)
		}},
		"a device that was made anew blocks nobody": {true, func(h *history) {
			h.block(58, 59, Block)
			h.add(60, 61, "bo/1", Restore, OK, nil)
			h.asks(62, 63)
			h.answers(64, 65, OK)
		}},
		"a person who hears does first what waits": {true, func(h *history) {
			h.set(52, 53, "2", OK, 2, "a")
			h.hear(60, 61, "1")
			(*h)[len(*h)-1].Result = "chain_moved"
		}},
		"who asks does not": {false, func(h *history) {
			h.set(52, 53, "2", OK, 2, "a")
			h.asks(60, 61)
			(*h)[len(*h)-1].Result = "chain_moved"
		}},
		"and is told nothing else": {false, func(h *history) { h.hear(60, 61, "1"); (*h)[len(*h)-1].Result = "internal" }},
		"what is given up while somebody sees new keys may be there": {true, func(h *history) {
			h.replace(50, 51, "1", OK)
			h.refresh(52, 53, "1", "unchanged", 1, 1, 0)
			h.renounce(60, 62, OK)
			h.add(61, 63, "bo/1", Sync, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Version: 1, Number: 7}} })
			h.refresh(64, 65, "1", "released", 0, 1, 7)
		}},
		"not where there are none": {false, func(h *history) {
			h.renounce(60, 62, OK)
			h.add(61, 63, "bo/1", Sync, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Version: 1, Number: 7}} })
			h.refresh(64, 65, "1", "released", 0, 1, 7)
		}},
		"a closed account is nothing too": {true, func(h *history) {
			h.add(60, 61, "bo/1", Close, OK, nil)
			h.refresh(62, 63, "2", None, 0, 0, 0)
		}},
		"what was not asked is answered by nobody's blocking": {true, func(h *history) {
			h.block(58, 59, Block)
			h.kill(62, 63)
			h.asks(62, 63)
			(*h)[len(*h)-1].Result, (*h)[len(*h)-1].About = "unavailable", ""
			h.answers(64, 65, NotAsked)
		}},
	}
}

// TestForgedOutcomes takes the traces of scripts of testdata/scripts, which the product made, and forges one outcome at a time: each must be noticed.
func TestForgedOutcomes(t *testing.T) {
	forged := forge(t, load(t, "everything"), true) + forge(t, load(t, "sheets-and-roots"), false) + forge(t, load(t, "added-and-deleted"), false) + forge(t, load(t, "people"), true)
	if forged < 1000 {
		t.Errorf("%d outcomes were forged", forged)
	}
	t.Logf("%d outcomes were forged", forged)
}

// forge forges each outcome of a trace, and returns how many it forged. Where every value is seen often enough, it forges each.
func forge(t *testing.T, events []Event, values bool) int {
	if _, violations := Check(clone(events), Rules{}); len(violations) > 0 {
		t.Fatalf("the trace as it was: %v", violations)
	}
	ever := func(owner string, is func(*Event) bool) bool {
		return slices.ContainsFunc(events, func(x Event) bool { return x.owner() == owner && is(&x) })
	}
	replaced := func(owner string) bool { return ever(owner, (*Event).replacesRoot) }
	closed := func(owner string) bool { return ever(owner, func(x *Event) bool { return x.Do == Close }) }
	var unchanged []*Item // in which a check notes what they are
	for i := range events {
		for j := range events[i].Items {
			if it := &events[i].Items[j]; it.Result == "unchanged" {
				unchanged = append(unchanged, it)
			}
		}
	}
	forged := 0
	try := func(e *Event, what string, change func(*Event)) {
		t.Helper()
		was := *e
		e.Items = slices.Clone(e.Items)
		change(e)
		_, violations := check(events, Rules{}, true)
		*e = was
		for _, it := range unchanged {
			it.Number = 0
		}
		if forged++; len(violations) == 0 {
			t.Errorf("%s: %s: not noticed", e, what)
		}
	}
	refusals := []string{"no_grant", "grant_revoked", "not_found", "grant_expired", "grant_not_yet_valid", "limit_reached", "head_moved", "frozen", "suspended", "unavailable"}
	unheard := []string{"wrong_leaf", "key_missing", "untrue"} // which a reader is never told: to the model the same, so that items take turns
	for i := range events {
		e := &events[i]
		if e.Do != Kill && e.Do != Restart && e.Do != Restore && !troubled(events, e) {
			try(e, "unavailable", func(e *Event) { e.Result = "unavailable" })
			try(e, "internal", func(e *Event) { e.Result = "internal" })
		}
		if settles(e) && e.Result == OK && !replaced(e.owner()) {
			try(e, "replaced", func(e *Event) { e.Result = Replaced })
		}
		if settles(e) && !slices.ContainsFunc(events, func(x Event) bool { return x.Do == Freeze && x.owner() == e.owner() }) {
			try(e, ThawOld, func(e *Event) { e.Result = ThawOld })
		}
		if settles(e) && !closed(e.owner()) {
			try(e, "account_closed", func(e *Event) { e.Result = "account_closed" })
		}
		if e.Do == Close {
			for _, r := range []string{NotStopped, Untold, "account_closed"} {
				try(e, r, func(e *Event) { e.Result = r })
			}
		}
		if e.Result == Replaced {
			try(e, "it worked", func(e *Event) { e.Result = OK })
		}
		if e.Do == Answer {
			for _, r := range []string{OK, "wider_than_asked", "already_answered", "consent_expired"} {
				if r != e.Result {
					try(e, r, func(e *Event) { e.Result = r })
				}
			}
		}
		if e.Do == Hear && len(e.Items) > 0 {
			try(e, "it hears more", func(e *Event) { e.Items[0].Field = "b" })
		}
		if e.Do == Contacts {
			for j := range e.Items {
				try(e, "something is missing", func(e *Event) { e.Items = slices.Delete(e.Items, j, j+1) })
				try(e, "another version", func(e *Event) { e.Items[j].Version++ })
				try(e, "another value", func(e *Event) { e.Items[j].Number++ })
				try(e, "by somebody else", func(e *Event) { e.Items[j].Author = "acme" })
				try(e, "it is not shown", func(e *Event) { e.Items[j].Result = "hidden" })
			}
			try(e, "there is more", func(e *Event) {
				e.Items = append(e.Items, Item{Owner: "bo", Field: "e", Result: Kept, Version: 1, Number: 1})
			})
		}
		if (e.Do == Block || e.Do == Unblock || e.Do == Contacts) && !replaced(e.owner()) {
			try(e, "replaced", func(e *Event) { e.Result = Replaced })
		}
		if e.Do == Replay || e.Do == Forge {
			try(e, "it worked", func(e *Event) { e.Result = OK })
			continue
		}
		if e.Do == Write && e.Result == OK {
			for _, r := range []string{"no_write_grant", "write_ended"} {
				try(e, r, func(e *Event) { e.Result = r })
			}
		}
		if e.Do == LookUp && e.Reader == "globex" || e.Do == Specify || e.Do == Forward {
			for _, r := range []string{OK, "not_introduced", "no_contact", NotAsked, "not_the_source"} {
				if r != e.Result && !(e.Do == Specify && r == OK) {
					try(e, r, func(e *Event) { e.Result = r })
				}
			}
		}
		if e.changesAccount() && e.Do != Password || e.Do == KitTest || e.Do == Rescue {
			for _, r := range []string{OK, "outdated", HasSheet, "no_account", "kit_wrong", NotAsked, "not_the_recovery_key", "password_wrong"} {
				if r != e.Result {
					try(e, r, func(e *Event) { e.Result = r })
				}
			}
			if e.Do == KitTest || e.Do == Rescue {
				try(e, "with another sheet", func(e *Event) { e.Result, e.Number = OK, 9999 })
			} else if e.Result == OK && (e.Do == KitPrint || e.Do == KitReplace) {
				try(e, "the person hears something else", func(e *Event) { e.Over = !e.Over })
			}
		}
		if e.Do == Pair {
			for _, r := range []string{OK, NotSame, "succession_pending", Replaced, "untrue"} {
				if r != e.Result {
					try(e, r, func(e *Event) { e.Result = r })
				}
			}
		}
		if e.Do == Announce || e.Do == Object || e.Do == Succeed {
			for _, r := range []string{OK, "succession_pending", "not_found", NotAsked, "succession_unannounced", "replaced"} {
				if r != e.Result {
					try(e, r, func(e *Event) { e.Result = r })
				}
			}
		}
		if e.Do == Guess || e.Do == Password || e.Do == Unlock {
			for _, r := range []string{OK, "password_wrong", "password_locked", "outdated", "no_account", "not_found"} {
				if r != e.Result && !(e.Do != Guess && r == OK) && !(e.Do == Password && r == "outdated" && e.Who != "dora/1" && !e.Again) {
					try(e, r, func(e *Event) { e.Result = r })
				}
			}
		}
		if e.deposits() {
			for _, r := range []string{OK, "wider_than_asked", "order_used", NotAsked, "no_write_grant", "write_ended"} {
				if r != e.Result {
					try(e, r, func(e *Event) { e.Result = r })
				}
			}
			try(e, "without an order", func(e *Event) { e.Result, e.About, e.Asked = OK, "", nil })
		}
		if e.Do == Collect && e.Result == OK {
			try(e, NotAsked, func(e *Event) { e.Result = NotAsked })
			for j := range e.Items {
				if e.Items[j].Number != 0 {
					try(e, "not the source's", func(e *Event) { e.Items[j].Number, e.Items[j].Author = 117, "" })
				}
			}
		}
		if e.Do == Write && e.Result != "grant_not_yet_valid" {
			try(e, "grant_not_yet_valid", func(e *Event) { e.Result = "grant_not_yet_valid" })
		}
		if (e.Do == Write || e.Do == EndWrite || e.Do == GiveUp || e.Do == Freeze || settles(e) && e.Result == "account_closed") && e.Result != OK {
			try(e, "it worked", func(e *Event) { e.Result = OK })
		}
		if e.Do != Read && e.Do != Refresh && e.Do != Sync || e.Result != OK || troubled(events, e) {
			continue
		}
		if e.Do == Sync && len(e.Items) > 0 {
			try(e, "the device lacks something", func(e *Event) { e.Items = e.Items[1:] })
		}
		for j, it := range e.Items {
			if !values {
				try(e, "a value that nobody set", func(e *Event) { e.Items[j].Result, e.Items[j].Number = "released", 9999 })
				continue
			}
			name := fmt.Sprintf("item %d, %s:%s", j, it.Owner, it.Field)
			set := func(what string, change func(*Item)) {
				t.Helper()
				try(e, name+" "+what, func(e *Event) { change(&e.Items[j]) })
			}
			if it.Number != 0 && it.Result != "unchanged" { // an unchanged one has no value
				set("another version", func(it *Item) { it.Version++ })
				set("a value that nobody set", func(it *Item) { it.Number = 9999 })
				for _, author := range []string{"", "acme", "globex"} {
					if author != it.Author {
						set("by "+author, func(it *Item) { it.Author = author })
					}
				}
				elsewhere := map[authorOf]bool{} // of the values of other fields one of each author: which one is the same to the model
				for _, other := range events {
					if other.Do != Set && other.Do != Write || other.Number == it.Number {
						continue
					}
					by := authorOf{cmp.Or(other.Owner, other.owner()), other.owner()}
					here := by.owner == it.Owner && slices.Contains(other.Fields, it.Field)
					if here || !elsewhere[by] {
						elsewhere[by] = elsewhere[by] || !here
						set(fmt.Sprintf("the value of line %d", other.Number), func(it *Item) { it.Number = other.Number })
					}
				}
			}
			if e.Do == Sync {
				continue
			}
			if e.Do == Refresh {
				set("something else was kept", func(it *Item) { it.Known++ })
				if it.Result != None {
					set("it is gone, nobody says why", func(it *Item) { it.Result, it.Version, it.Number = None, 0, 0 })
				}
			}
			for _, r := range append(refusals, unheard[j%len(unheard)]) {
				if closedBefore(events, e, &it) && (r == "no_grant" || r == "grant_revoked") { // either, while the storefront deletes what it has
					continue
				}
				if r == "suspended" && e.Do == Refresh && replaced(e.owner()) { // whether others have seen the new keys they do not say
					continue
				}
				if r != it.Result && !(r == "grant_revoked" && it.Result == "no_grant" && everRevoked(events, e, it)) {
					set(r, func(it *Item) { it.Result, it.Version, it.Number = r, 0, 0 })
				}
			}
			if it.Result != "released" {
				set("released", func(it *Item) { it.Result, it.Version, it.Number = "released", 99, newest(events, e, it) })
			}
			if it.Result != "unchanged" {
				set("unchanged", func(it *Item) { it.Result = "unchanged" })
			}
		}
	}
	return forged
}

func troubled(events []Event, e *Event) bool {
	for _, k := range events {
		if k.Do == Kill && (k.Who != "keys" || e.Do == Guess || e.changesAccount() || e.Do == Unlock) && k.Start < e.End && e.Start < k.End {
			return true
		}
	}
	return false
}

func closedBefore(events []Event, e *Event, it *Item) bool {
	for _, c := range events {
		if c.Do == Close && c.owner() == it.Owner && c.Start < e.End {
			return true
		}
	}
	return false
}

func everRevoked(events []Event, e *Event, it Item) bool {
	for _, r := range events {
		if r.Do == Revoke && r.Result == OK && r.owner() == it.Owner && r.Reader == e.owner() && r.Start < e.Start {
			return true
		}
	}
	return false
}

// newest is the newest value of an item before an event.
func newest(events []Event, e *Event, it *Item) (n int) {
	for _, s := range events {
		if s.Do == Set && s.owner() == it.Owner && s.Start < e.Start && strings.Contains(" "+strings.Join(s.Fields, " ")+" ", " "+it.Field+" ") {
			n = s.Number
		}
	}
	return n
}

// history builds small traces. Times are in milliseconds.
type history []Event

func (h *history) add(from, to int64, who, do, result string, more func(*Event)) {
	e := Event{Line: len(*h) + 1, Start: from * 1e6, End: to * 1e6, Who: who, Do: do, Result: result}
	if more != nil {
		more(&e)
	}
	*h = append(*h, e)
}

func (h *history) set(from, to int64, device, result string, number int, fields ...string) {
	h.add(from, to, "ana/"+device, Set, result, func(e *Event) { e.Number, e.Fields = number, fields })
}

func (h *history) grant(from, to int64, device, result string, terms Terms) {
	h.add(from, to, "ana/"+device, Grant, result, func(e *Event) { e.Reader, e.Fields, e.Terms = "acme", []string{"a"}, terms })
}

func (h *history) revoke(from, to int64, device, result string) {
	h.add(from, to, "ana/"+device, Revoke, result, func(e *Event) { e.Reader, e.Fields, e.Keep = "acme", []string{"a"}, true })
}

func (h *history) read(from, to int64, result string, number int, version uint64) {
	h.add(from, to, "acme/1", Read, OK, func(e *Event) {
		e.Items = []Item{{Owner: "ana", Field: "a", Result: result, Number: number, Version: version, At: from}}
	})
}

func (h *history) letWrite(from, to int64, do, result string) {
	h.add(from, to, "ana/1", do, result, func(e *Event) { e.Reader, e.Fields = "globex", []string{"a"} })
}

func (h *history) letWriteFor(from, to int64, terms Terms) {
	h.add(from, to, "ana/1", GrantWrite, OK, func(e *Event) { e.Reader, e.Fields, e.Terms = "globex", []string{"a"}, terms })
}

func (h *history) write(from, to int64, device, result string, number int) {
	h.add(from, to, "globex/"+device, Write, result, func(e *Event) { e.Owner, e.Fields, e.Number = "ana", []string{"a"}, number })
}

func (h *history) readBy(from, to int64, author string, number int, version uint64) {
	h.add(from, to, "acme/1", Read, OK, func(e *Event) {
		e.Items = []Item{{Owner: "ana", Field: "a", Author: author, Result: "released", Number: number, Version: version, At: from}}
	})
}

func (h *history) giveUp(from, to int64, result string) {
	h.add(from, to, "acme/2", GiveUp, result, func(e *Event) { e.Owner, e.Fields = "ana", []string{"a"} })
}

// other is what the other device decides about a field and globex.
func (h *history) other(from, to int64, do, field string, keep bool, source string) {
	h.add(from, to, "ana/2", do, OK, func(e *Event) {
		e.Reader, e.Fields, e.Asked, e.Keep, e.Source = "globex", []string{field}, []string{field}, keep, source
	})
}

func (h *history) replace(from, to int64, device, result string) {
	h.add(from, to, "ana/"+device, Replace, result, nil)
}

func (h *history) close(from, to int64, device, result string) {
	h.add(from, to, "ana/"+device, Close, result, nil)
}

// specified has an owner answer acme's specification of what globex is to deposit.
func (h *history) specified(from, to int64, result string, terms Terms) {
	h.add(from, to, "ana/1", Answer, result, func(e *Event) {
		e.Reader, e.Fields, e.Asked, e.Source, e.About, e.Terms, e.Over = "acme", []string{"b"}, []string{"a", "b"}, "globex", "1", terms, result == "consent_expired"
	})
}

func (h *history) deposit(from, to int64, result string, number int, fields ...string) {
	h.add(from, to, "globex/1", Write, result, func(e *Event) {
		e.Attack, e.Owner, e.Fields, e.Asked, e.Number, e.About = "deposit", "ana", fields, []string{"b"}, number, "1"
	})
}

func (h *history) lookUp(from, to int64, result string) {
	h.add(from, to, "acme/1", LookUp, result, func(e *Event) { e.Reader = "globex" })
}

func (h *history) introduce(from, to int64) {
	h.add(from, to, "ana/1", Introduce, OK, func(e *Event) { e.Reader, e.To = "globex", "acme" })
}

func (h *history) password(from, to int64, device, result, which string) {
	h.add(from, to, "ana/"+device, Password, result, func(e *Event) { e.Attack = which })
}

func (h *history) guess(from, to int64, result, which string) {
	h.add(from, to, "ana", Guess, result, func(e *Event) { e.Attack = which })
}

// guesses are some wrong ones, each of which was taken.
func (h *history) guesses(n int64) {
	for i := range n {
		h.guess(100+20*i, 110+20*i, "password_wrong", "two")
	}
}

// guessed are some wrong ones since the password was set.
func (h *history) guessed(n int64) {
	h.password(12, 14, "1", OK, "one")
	h.guesses(n)
}

// unanswered is one after those, while the key server is away.
func (h *history) unanswered(result, which string) {
	h.halt(400, 410)
	h.guess(400, 410, result, which)
}

// sheet has a device print a recovery sheet, in place of one that works if do says so. Its number is the time at which it was printed.
func (h *history) sheet(from, to int64, device, do, result string, ended bool) {
	h.add(from, to, "ana/"+device, do, result, func(e *Event) { e.Number, e.Over = int(from), ended })
}

func (h *history) rescue(from, to int64, device, result string, number int) {
	h.add(from, to, "ana/"+device, Rescue, result, func(e *Event) { e.Number = number })
}

// rescuedAfterANewRoot is a device that is made with a sheet of the newest root. What was set last has an older version then than what was set before.
func (h *history) rescuedAfterANewRoot() {
	h.replace(15, 16, "1", OK)
	h.sheet(17, 18, "1", KitPrint, OK, false)
	h.set(19, 20, "1", OK, 3, "b")
	h.rescue(21, 22, "2", OK, 17)
	h.set(23, 24, "1", OK, 4, "a")
	h.add(25, 26, "ana/2", Sync, OK, func(e *Event) {
		e.Items = []Item{{Owner: "ana", Field: "a", Number: 4, Version: 8}, {Owner: "ana", Field: "b", Number: 3, Version: 9}}
	})
}

func (h *history) announce(from, to int64, device, result string) {
	h.add(from, to, "ana/"+device, Announce, result, nil)
}

func (h *history) object(from, to int64, device, result string) {
	h.add(from, to, "ana/"+device, Object, result, nil)
}

func (h *history) succeed(from, to int64, device, result string) {
	h.add(from, to, "ana/"+device, Succeed, result, nil)
}

func (h *history) rotate(from, to int64, device, result string) {
	h.add(from, to, "ana/"+device, Rotate, result, func(e *Event) { e.Fields = []string{"a"} })
}

func (h *history) restore(from, to int64, device string) {
	h.add(from, to, "ana/"+device, Restore, OK, nil)
}

// pair has a device made anew by approval on the other one.
func (h *history) pair(from, to int64, device, result, word string) {
	h.add(from, to, "ana/"+device, Pair, result, func(e *Event) { e.Attack = word })
}

func (h *history) drop(from, to int64, device, result string) {
	h.add(from, to, "ana/"+device, Drop, result, nil)
}

func (h *history) synced(from, to int64) {
	h.add(from, to, "ana/2", Sync, OK, func(e *Event) {
		e.Items = []Item{{Owner: "ana", Field: "a", Number: 1, Version: 1}, {Owner: "ana", Field: "b", Number: 1, Version: 1}}
	})
}

func (h *history) answer(from, to int64, result string, more func(*Event), fields ...string) {
	h.add(from, to, "ana/1", Answer, result, func(e *Event) {
		if e.Reader, e.Fields, e.Asked = "acme", fields, []string{"a", "b"}; more != nil {
			more(e)
		}
	})
}

// refresh has ana read bo's field. What comes of it is told with what was kept before.
func (h *history) refresh(from, to int64, device, result string, known, version uint64, number int) {
	h.add(from, to, "ana/"+device, Refresh, OK, func(e *Event) {
		e.Items = []Item{{Owner: "bo", Field: "a", Result: result, Known: known, Version: version, Number: number}}
	})
}

func (h *history) contacts(from, to int64, device string, version uint64, number int) {
	h.add(from, to, "ana/"+device, Contacts, OK, func(e *Event) {
		if version != 0 {
			e.Items = []Item{{Owner: "bo", Field: "a", Result: Kept, Version: version, Number: number}}
		}
	})
}

// bo has bo do something, about ana.
func (h *history) bo(from, to int64, do, result string) {
	h.add(from, to, "bo/1", do, result, func(e *Event) { e.Reader, e.Fields = "ana", []string{"a"} })
}

// bos has bo set the field.
func (h *history) bos(from, to int64, number int) {
	h.add(from, to, "bo/1", Set, OK, func(e *Event) { e.Fields, e.Number = []string{"a"}, number })
}

// renounce has ana give it up.
func (h *history) renounce(from, to int64, result string) {
	h.add(from, to, "ana/1", GiveUp, result, func(e *Event) { e.Owner, e.Fields = "bo", []string{"a"} })
}

func (h *history) block(from, to int64, do string) {
	h.add(from, to, "bo/1", do, OK, func(e *Event) { e.Reader = "ana" })
}

// blocksBo has ana block bo, or let bo in again.
func (h *history) blocksBo(from, to int64, do string) {
	h.add(from, to, "ana/1", do, OK, func(e *Event) { e.Reader = "bo" })
}

// also has somebody set another field, grant it, and be read.
func (h *history) also(owner, field string) {
	h.add(52, 53, owner+"/1", Set, OK, func(e *Event) { e.Fields, e.Number = []string{field}, 9 })
	h.add(54, 55, owner+"/1", Grant, OK, func(e *Event) { e.Reader, e.Fields = "ana", []string{field} })
}

// rivalOfBo has bo's other device be at work.
func (h *history) rivalOfBo() {
	h.add(52, 53, "bo/2", Set, OK, func(e *Event) { e.Fields, e.Number = []string{"b"}, 9 })
}

// shown has ana replace the root, and bo's device see that: what is news she reads from then on.
func (h *history) shown() {
	h.replace(60, 61, "1", OK)
	h.bos(62, 63, 8)
	h.refresh(64, 65, "1", "suspended", 1, 0, 0)
	h.add(66, 67, "bo/1", Sync, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Version: 2, Number: 8}} })
}

func (h *history) asks(from, to int64) {
	h.add(from, to, "ana/1", Ask, OK, func(e *Event) { e.Owner, e.Fields, e.About = "bo", []string{"a"}, "1" })
}

func (h *history) answers(from, to int64, result string) {
	h.add(from, to, "bo/1", Answer, result, func(e *Event) {
		if e.Reader = "ana"; result != NotAsked {
			e.Fields, e.Asked, e.About = []string{"a"}, []string{"a"}, "1"
		}
	})
}

// hears has ana hear that the field was granted.
func (h *history) hears(from, to int64) {
	h.add(from, to, "ana/1", Hear, OK, func(e *Event) { e.Items = []Item{{Owner: "bo", Field: "a", Result: "granted"}} })
}

func (h *history) hear(from, to int64, device string) { h.add(from, to, "ana/"+device, Hear, OK, nil) }

func (h *history) ask(from, to int64, do, result string, fields ...string) {
	h.add(from, to, "acme/1", do, result, func(e *Event) { e.Owner, e.Fields = "ana", fields })
}

func (h *history) readOf(field, result string) {
	h.add(40, 50, "acme/1", Read, OK, func(e *Event) {
		it := Item{Owner: "ana", Field: field, Result: result}
		if result == "released" {
			it.Number, it.Version, it.At = 1, 1, 45
		}
		e.Items = []Item{it}
	})
}

// grantOfNothing grants a field that is not there.
func (h *history) grantOfNothing(terms Terms) {
	h.add(12, 14, "ana/1", Grant, OK, func(e *Event) { e.Reader, e.Fields, e.Terms = "acme", []string{"c"}, terms })
}

// letWriteC lets globex write it.
func (h *history) letWriteC() {
	h.add(16, 18, "ana/1", GrantWrite, OK, func(e *Event) { e.Reader, e.Fields = "globex", []string{"c"} })
}

// readLater is a read when what was granted for seconds is over.
func (h *history) readLater(field, result string) {
	h.add(9000, 9010, "acme/1", Read, OK, func(e *Event) { e.Items = []Item{{Owner: "ana", Field: field, Result: result}} })
}

// giveUpB has acme give up the other field.
func (h *history) giveUpB(from, to int64) {
	h.giveUp(from, to, OK)
	(*h)[len(*h)-1].Fields = []string{"b"}
}

func (h *history) suspend(from, to int64, device, result string) {
	h.add(from, to, "acme/"+device, Suspend, result, nil)
}

func (h *history) freeze(from, to int64) { h.add(from, to, "ana", Freeze, OK, nil) }

func (h *history) thaw(from, to int64, result string) { h.add(from, to, "ana/1", Thaw, result, nil) }

// specify has acme ask for what globex is to deposit, whom it did not look up.
func (h *history) specify(from, to int64) {
	h.ask(from, to, Specify, "no_contact", "a")
	(*h)[len(*h)-1].Source = "globex"
}

// unmet has acme be told, of what globex is to deposit, that it does not know globex.
func (h *history) unmet(from, to int64, do string) {
	h.add(from, to, "acme/1", do, "no_contact", func(e *Event) { e.Source, e.About = "globex", "1" })
}

// told has acme hear that a field was granted.
func (h *history) told(field string) {
	h.add(40, 50, "acme/1", Hear, OK, func(e *Event) { e.Items = []Item{{Owner: "ana", Field: field, Result: "granted"}} })
}

// cut has the process of what was added last be ended.
func (h *history) cut() { (*h)[len(*h)-1].Cut = true }

// unknownThenSet has a device set a value, whose answer is lost, and the first one another after it.
func (h *history) unknownThenSet(device string) {
	h.kill(20, 30)
	h.set(20, 30, device, "unavailable", 2, "a")
	h.set(40, 50, "1", OK, 3, "a")
}

// forge has an enemy try something of ana's.
func (h *history) forge(from, to int64, what, result string) {
	h.add(from, to, "ana", Forge, result, func(e *Event) { e.Attack = what })
}

func (h *history) kill(from, to int64) { h.add(from, to, "vault", Kill, OK, nil) }

func (h *history) last() *Event { return &(*h)[len(*h)-1] }

// ana has ana's first device do something about somebody.
func (h *history) ana(from, to int64, do, reader, result string, fields ...string) {
	h.add(from, to, "ana/1", do, result, func(e *Event) { e.Reader, e.Fields = reader, fields })
}

// letWriteOf lets somebody write a field in a time.
func (h *history) letWriteOf(from, to int64, writer, field string, terms Terms) {
	h.ana(from, to, GrantWrite, writer, OK, field)
	h.last().Terms = terms
}

// writeOf is a write of another field.
func (h *history) writeOf(from, to int64, writer, result string, number int, field string) {
	h.add(from, to, writer, Write, result, func(e *Event) { e.Owner, e.Fields, e.Number = "ana", []string{field}, number })
}

// adoptedAndMoved has globex write a field, ana decide about it, and something else follow, by which the field moved to other keys, or did not. Then ana takes it out, and it is gone.
func (h *history) adoptedAndMoved(decide string, move func()) {
	h.letWrite(20, 30, GrantWrite, OK)
	h.write(40, 50, "1", OK, 2)
	h.letWrite(51, 52, decide, OK)
	move()
	h.ana(5055, 5056, Remove, "", OK, "a")
	h.read(5060, 5070, "not_found", 0, 0)
}

// about has a session of acme do something about what globex is to deposit.
func (h *history) about(from, to int64, session, do, result string) {
	h.add(from, to, "acme/"+session, do, result, func(e *Event) { e.Source, e.About = "globex", "1" })
}

// registers has globex be looked up by introduction only.
func (h *history) registers(from, to int64) { h.add(from, to, "globex/1", Register, OK, nil) }

// collects has acme collect the field b, with one outcome.
func (h *history) collects(result, author string, number int) {
	h.about(40, 50, "1", Collect, OK)
	h.last().Items = []Item{{Owner: "ana", Field: "b", Result: result, Author: author, Number: number}}
	if result == "released" {
		h.last().Items[0].Version, h.last().Items[0].At = 1, 45
	}
}

// halt is a time at which the key server is away.
func (h *history) halt(from, to int64) { h.add(from, to, "keys", Kill, OK, nil) }

// again is a change of the account whatever another device changed.
func (h *history) again(from, to int64, device, do, result, which string) {
	h.add(from, to, "ana/"+device, do, result, func(e *Event) { e.Attack, e.Again = which, true })
}

// halfTaken has the second device be cut short while it takes over what the first one did with the account, by a change of its own.
func (h *history) halfTaken(do string) {
	h.kill(15, 16)
	h.again(15, 16, "2", do, "unavailable", "one")
}

func whatStatesAllow() map[string]story {
	return map[string]story{
		"a read while a value is set sees the old one": {true, func(h *history) { h.set(20, 40, "1", OK, 2, "a"); h.read(25, 35, "released", 1, 1) }},
		"or the new one":        {true, func(h *history) { h.set(20, 40, "1", OK, 2, "a"); h.read(25, 35, "released", 2, 2) }},
		"not one to come":       {false, func(h *history) { h.read(20, 30, "released", 2, 2); h.set(40, 50, "1", OK, 2, "a") }},
		"not the old one after": {false, func(h *history) { h.set(20, 40, "1", OK, 2, "a"); h.read(45, 50, "released", 1, 1) }},
		"not the old one after somebody saw the new one": {false, func(h *history) {
			h.set(20, 90, "1", OK, 2, "a")
			h.read(25, 35, "released", 2, 2)
			h.read(40, 50, "released", 1, 1)
		}},
		"but at the same time as somebody": {true, func(h *history) {
			h.set(20, 90, "1", OK, 2, "a")
			h.read(25, 35, "released", 2, 2)
			h.read(30, 50, "released", 1, 1)
		}},
		"a lost answer leaves both, for ever": {true, func(h *history) {
			h.kill(20, 30)
			h.set(20, 30, "1", "unavailable", 2, "a")
			h.read(500, 510, "released", 1, 1)
			h.read(520, 530, "released", 2, 2)
		}},
		"until the device says that it is done": {false, func(h *history) {
			h.kill(20, 30)
			h.set(20, 30, "1", "unavailable", 2, "a")
			h.add(40, 50, "ana/1", Revoke, OK, func(e *Event) { e.Reader = "globex" })
			h.read(500, 510, "released", 1, 1)
		}},
		"another device's word settles nothing": {true, func(h *history) {
			h.kill(20, 30)
			h.set(20, 30, "1", "unavailable", 2, "a")
			h.add(40, 50, "ana/2", Revoke, OK, func(e *Event) { e.Reader = "globex" })
			h.read(500, 510, "released", 1, 1)
		}},
		"an answer may not be lost while all is well": {false, func(h *history) { h.set(20, 30, "1", "unavailable", 2, "a") }},
		"of two at once either is the newest": {true, func(h *history) {
			h.set(20, 40, "1", OK, 2, "a")
			h.set(20, 40, "2", OK, 3, "a")
			h.read(50, 60, "released", 2, 3)
			h.read(70, 80, "released", 2, 3)
		}},
		"but not both": {false, func(h *history) {
			h.set(20, 40, "1", OK, 2, "a")
			h.set(20, 40, "2", OK, 3, "a")
			h.read(50, 60, "released", 2, 3)
			h.read(70, 80, "released", 3, 4)
		}},
		"versions grow": {false, func(h *history) {
			h.set(20, 40, "1", OK, 2, "a")
			h.read(14, 16, "released", 1, 5)
			h.read(50, 60, "released", 2, 4)
		}},
		"a version stands for one value": {false, func(h *history) {
			h.read(14, 16, "released", 1, 1)
			h.set(20, 40, "1", OK, 2, "a")
			h.read(50, 60, "released", 2, 1)
		}},
		"a value is published once":                     {false, func(h *history) { h.read(14, 16, "released", 1, 1); h.read(50, 60, "released", 1, 2) }},
		"a revoked reader may read while it is revoked": {true, func(h *history) { h.revoke(20, 40, "1", OK); h.read(25, 35, "released", 1, 1) }},
		"not afterwards":                                {false, func(h *history) { h.revoke(20, 40, "1", OK); h.read(45, 50, "released", 1, 1) }},
		"not after a second device was told":            {false, func(h *history) { h.revoke(20, 40, "2", OK); h.read(45, 50, "released", 1, 1) }},
		"not once somebody was refused": {false, func(h *history) {
			h.revoke(20, 90, "1", OK)
			h.read(25, 35, "grant_revoked", 0, 0)
			h.read(40, 50, "released", 1, 1)
		}},
		"while it is not stopped, both": {true, func(h *history) {
			h.kill(20, 30)
			h.revoke(20, 30, "1", NotStopped)
			h.read(45, 50, "released", 1, 1)
			h.read(60, 70, "grant_revoked", 0, 0)
		}},
		"stopped and not rotated is stopped": {false, func(h *history) { h.kill(20, 30); h.revoke(20, 30, "1", NotRotated); h.read(45, 50, "released", 1, 1) }},
		"granted again, it reads": {true, func(h *history) {
			h.revoke(20, 30, "1", OK)
			h.grant(40, 50, "2", OK, Terms{})
			h.read(60, 70, "released", 1, 1)
		}},
		"granted again, it must": {false, func(h *history) {
			h.revoke(20, 30, "1", OK)
			h.grant(40, 50, "2", OK, Terms{})
			h.read(60, 70, "grant_revoked", 0, 0)
		}},
		"three reads of two": {false, func(h *history) {
			h.grant(20, 30, "1", OK, Terms{Limit: 2})
			for i := int64(4); i < 7; i++ {
				h.read(i*10, i*10+5, "released", 1, 1)
			}
		}},
		"refused after one of two": {false, func(h *history) {
			h.grant(20, 30, "1", OK, Terms{Limit: 2})
			h.read(40, 45, "released", 1, 1)
			h.read(50, 55, "limit_reached", 0, 0)
		}},
		"refused after one of two, and one whose answer was lost": {true, func(h *history) {
			h.grant(20, 30, "1", OK, Terms{Limit: 2})
			h.read(40, 45, "released", 1, 1)
			h.kill(46, 47)
			h.add(46, 49, "acme/2", Read, "unavailable", func(e *Event) { e.Items = []Item{{Owner: "ana", Field: "a"}} })
			h.read(50, 55, "limit_reached", 0, 0)
		}},
		"granted anew, the day goes on": {false, func(h *history) {
			h.grant(20, 30, "1", OK, Terms{Limit: 2})
			h.read(40, 45, "released", 1, 1)
			h.read(50, 55, "released", 1, 1)
			h.revoke(60, 65, "1", OK)
			h.grant(70, 75, "1", OK, Terms{Limit: 2})
			h.read(80, 85, "released", 1, 1)
		}},
		"granted anew, refused for what came before": {true, func(h *history) {
			h.grant(20, 30, "1", OK, Terms{})
			h.read(40, 45, "released", 1, 1)
			h.read(50, 55, "released", 1, 1)
			h.grant(70, 75, "1", OK, Terms{Limit: 2})
			h.read(80, 85, "limit_reached", 0, 0)
		}},
		"rotated, the day goes on": {false, func(h *history) {
			h.grant(20, 30, "1", OK, Terms{Limit: 2})
			h.read(40, 45, "released", 1, 1)
			h.read(50, 55, "released", 1, 1)
			h.add(60, 65, "ana/1", Rotate, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.read(80, 85, "released", 1, 1)
		}},
		"expired in its time": {false, func(h *history) { h.grant(20, 30, "1", OK, Terms{For: 5e9}); h.read(2000, 2010, "grant_expired", 0, 0) }},
		"read past its time":  {false, func(h *history) { h.grant(20, 30, "1", OK, Terms{For: 5e9}); h.read(7000, 7010, "released", 1, 1) }},
		"a publication is seen whole": {false, func(h *history) {
			h.add(15, 16, "ana/1", Grant, OK, func(e *Event) { e.Reader, e.Fields = "acme", []string{"b"} })
			h.set(20, 90, "1", OK, 2, "a", "b")
			h.add(30, 40, "acme/1", Read, OK, func(e *Event) {
				e.Items = []Item{{Owner: "ana", Field: "a", Result: "released", Number: 2, Version: 2, At: 35}, {Owner: "ana", Field: "b", Result: "released", Number: 1, Version: 1, At: 35}}
			})
		}},
		"a device that synced has the newest": {false, func(h *history) {
			h.set(20, 30, "2", OK, 2, "a")
			h.add(40, 50, "ana/1", Sync, OK, func(e *Event) {
				e.Items = []Item{{Owner: "ana", Field: "a", Number: 1, Version: 1}, {Owner: "ana", Field: "b", Number: 1, Version: 1}}
			})
		}},
		"a writer's value is the newest": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.readBy(60, 70, "globex", 2, 1)
		}},
		"and the owner's is not": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.read(60, 70, "released", 1, 1)
		}},
		"until the owner sets another": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.set(52, 54, "1", OK, 3, "a")
			h.readBy(60, 70, "globex", 2, 1)
		}},
		"of an owner and a writer at once either is the newest": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.set(45, 54, "1", OK, 3, "a")
			h.readBy(60, 70, "globex", 2, 1)
		}},
		"nobody writes without permission": {false, func(h *history) { h.write(40, 50, "1", OK, 2) }},
		"who has it is not refused":        {false, func(h *history) { h.letWrite(20, 30, GrantWrite, OK); h.write(40, 50, "1", "no_write_grant", 2) }},
		"nor after the end": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWrite(32, 36, EndWrite, OK)
			h.write(40, 50, "1", OK, 2)
		}},
		"what was written before the end stays": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(52, 56, EndWrite, OK)
			h.read(60, 70, "released", 1, 1)
		}},
		"what was written while it ended may not": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 54, "1", OK, 2)
			h.letWrite(52, 56, EndWrite, OK)
			h.read(60, 70, "released", 1, 1)
		}},
		"what was written while its field moved to other keys stays": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 54, "1", OK, 2)
			h.add(45, 56, "ana/1", Rotate, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.read(60, 70, "released", 1, 1)
		}},
		"a field that the owner removed is as others wrote it": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.set(52, 54, "1", OK, 3, "a")
			h.add(55, 56, "ana/1", Remove, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.readBy(60, 70, "globex", 2, 1)
		}},
		"and is not gone": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.add(55, 56, "ana/1", Remove, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.read(60, 70, "not_found", 0, 0)
		}},
		"nor with what was adopted": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(52, 54, Adopt, OK)
			h.add(55, 56, "ana/1", Remove, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.read(60, 70, "not_found", 0, 0)
		}},
		"unless it moved to other keys since": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(51, 52, Adopt, OK)
			h.add(53, 54, "ana/1", Rotate, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.add(55, 56, "ana/1", Remove, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.read(60, 70, "not_found", 0, 0)
		}},
		"what was adopted is the owner's": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(52, 56, Adopt, OK)
			h.read(60, 70, "released", 2, 2)
		}},
		"and not the writer's any more": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(52, 56, Adopt, OK)
			h.readBy(60, 70, "globex", 2, 1)
		}},
		"what was rejected does not count": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(52, 56, Reject, OK)
			h.readBy(60, 70, "globex", 2, 1)
		}},
		"nor is it the owner's": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(52, 56, Reject, OK)
			h.read(60, 70, "released", 2, 2)
		}},
		"nor after its time": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 1e9})
			h.write(2500, 2510, "1", OK, 2)
		}},
		"of which it is told": {true, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 1e9})
			h.write(40, 50, "1", OK, 2)
			h.readBy(60, 70, "globex", 2, 1)
			h.write(2500, 2510, "1", "write_ended", 3)
			h.readBy(2600, 2610, "globex", 2, 1)
		}},
		"but not in its time": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 5e9})
			h.write(2500, 2510, "1", "write_ended", 2)
		}},
		"nor before it": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{From: 3e9})
			h.write(1500, 1510, "1", OK, 2)
		}},
		"of which it is told too": {true, func(h *history) {
			h.letWriteFor(20, 30, Terms{From: 3e9})
			h.write(1500, 1510, "1", "grant_not_yet_valid", 2)
		}},
		"but not when it has come": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{From: 1e9})
			h.write(2500, 2510, "1", "grant_not_yet_valid", 2)
		}},
		"what was written in its time stays": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 2e9})
			h.write(40, 50, "1", OK, 2)
			h.read(4500, 4510, "released", 1, 1)
		}},
		"until its writer writes something else after it": {true, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 2e9})
			h.add(31, 32, "ana/1", GrantWrite, OK, func(e *Event) { e.Reader, e.Fields = "globex", []string{"c"} })
			h.write(40, 50, "1", OK, 2)
			h.add(4400, 4410, "globex/1", Write, OK, func(e *Event) { e.Owner, e.Fields, e.Number = "ana", []string{"c"}, 3 })
			h.read(4500, 4510, "released", 1, 1)
		}},
		"what was written when it was over may not count": {true, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 1e9})
			h.write(900, 1100, "1", OK, 2)
			h.read(4500, 4510, "released", 1, 1)
		}},
		"new terms take the place of older ones": {true, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 1e9})
			h.letWriteFor(2500, 2510, Terms{For: 5e9})
			h.write(2600, 2610, "1", OK, 2)
		}},
		"a lost answer to a writer leaves both": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.kill(40, 50)
			h.write(40, 50, "1", "unavailable", 2)
			h.read(60, 70, "released", 1, 1)
			h.readBy(80, 90, "globex", 2, 1)
		}},
		"what a reader gave up it does not read": {false, func(h *history) { h.giveUp(20, 30, OK); h.read(40, 50, "released", 1, 1) }},
		"until it is granted again": {true, func(h *history) {
			h.giveUp(20, 30, OK)
			h.grant(32, 36, "1", OK, Terms{})
			h.read(40, 50, "released", 1, 1)
		}},
		"a rotation does not bring it back": {false, func(h *history) {
			h.giveUp(20, 30, OK)
			h.add(32, 36, "ana/2", Rotate, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.read(40, 50, "released", 1, 1)
		}},
		"one at the same time may": {true, func(h *history) {
			h.giveUp(20, 30, OK)
			h.add(25, 36, "ana/2", Rotate, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.read(40, 50, "released", 1, 1)
		}},
		"nobody gives up what was not granted": {false, func(h *history) {
			h.add(20, 30, "acme/1", GiveUp, OK, func(e *Event) { e.Owner, e.Fields = "ana", []string{"b"} })
		}},
		"frozen, nobody reads": {false, func(h *history) { h.add(20, 30, "ana", Freeze, OK, nil); h.read(40, 50, "released", 1, 1) }},
		"whatever is granted": {false, func(h *history) {
			h.add(20, 30, "ana", Freeze, OK, nil)
			h.grant(32, 36, "1", OK, Terms{})
			h.read(40, 50, "released", 1, 1)
		}},
		"nobody is told so before": {false, func(h *history) { h.read(12, 14, "frozen", 0, 0); h.add(20, 30, "ana", Freeze, OK, nil) }},
		"thawed, all do": {true, func(h *history) {
			h.add(20, 30, "ana", Freeze, OK, nil)
			h.read(31, 32, "frozen", 0, 0)
			h.add(33, 36, "ana/2", Thaw, OK, nil)
			h.read(40, 50, "released", 1, 1)
		}},
		"and must": {false, func(h *history) {
			h.add(20, 30, "ana", Freeze, OK, nil)
			h.add(33, 36, "ana/2", Thaw, OK, nil)
			h.read(40, 50, "frozen", 0, 0)
		}},
		"there is nothing to thaw only if so": {false, func(h *history) {
			h.add(20, 30, "ana", Freeze, OK, nil)
			h.add(33, 36, "ana/2", Thaw, "not_found", nil)
		}},
		"a thaw that was kept is never told to be needless": {false, func(h *history) {
			h.kill(20, 30)
			h.add(20, 30, "ana/1", Thaw, "unavailable", nil)
			h.set(33, 36, "1", "not_found", 2, "a")
		}},
		"a thaw that waited ends no later freeze": {false, func(h *history) {
			h.kill(20, 30)
			h.add(20, 30, "ana/1", Thaw, "unavailable", nil)
			h.add(2040, 2050, "ana", Freeze, OK, nil)
			h.read(2060, 2070, "released", 1, 1)
		}},
		"and is given up": {true, func(h *history) {
			h.kill(20, 30)
			h.add(20, 30, "ana/1", Thaw, "unavailable", nil)
			h.add(2040, 2050, "ana", Freeze, OK, nil)
			h.set(2052, 2055, "1", ThawOld, 2, "a")
			h.read(2060, 2070, "frozen", 0, 0)
		}},
		"by its own device": {false, func(h *history) {
			h.kill(20, 30)
			h.add(20, 30, "ana/1", Thaw, "unavailable", nil)
			h.add(2040, 2050, "ana", Freeze, OK, nil)
			h.set(2052, 2055, "2", ThawOld, 2, "a")
		}},
		"one that was asked for again does": {true, func(h *history) {
			h.kill(20, 30)
			h.add(20, 30, "ana/1", Thaw, "unavailable", nil)
			h.add(2040, 2050, "ana", Freeze, OK, nil)
			h.add(2052, 2055, "ana/1", Thaw, OK, nil)
			h.read(2060, 2070, "released", 1, 1)
		}},
		"a replaced root is read as before": {true, func(h *history) {
			h.replace(20, 30, "1", OK)
			h.read(25, 28, "released", 1, 1)
			h.read(40, 50, "released", 1, 2)
		}},
		"not as it was before that": {false, func(h *history) {
			h.set(12, 14, "1", OK, 2, "a")
			h.replace(20, 30, "1", OK)
			h.read(40, 50, "released", 1, 3)
		}},
		"nobody is refused meanwhile": {false, func(h *history) {
			h.replace(20, 30, "1", OK)
			h.read(25, 28, "head_moved", 0, 0)
			h.read(26, 29, "not_found", 0, 0)
		}},
		"the other device does not go on": {false, func(h *history) { h.replace(20, 30, "1", OK); h.set(40, 50, "2", OK, 2, "a") }},
		"and is told why":                 {true, func(h *history) { h.replace(20, 30, "1", OK); h.set(40, 50, "2", Replaced, 2, "a") }},
		"made anew it does":               {true, func(h *history) { h.replace(20, 30, "1", OK); h.restore(32, 36, "2"); h.set(40, 50, "2", OK, 2, "a") }},
		"or what the vault says":          {true, func(h *history) { h.replace(20, 30, "1", OK); h.set(40, 50, "2", "key_replaced", 2, "a") }},
		"or not, if nobody can be asked": {true, func(h *history) {
			h.replace(20, 30, "1", OK)
			h.set(40, 50, "2", "unauthorized", 2, "a")
			(*h)[len(*h)-1].Cut = true
		}},
		"but only then":                      {false, func(h *history) { h.replace(20, 30, "1", OK); h.set(40, 50, "2", "unauthorized", 2, "a") }},
		"which it says of no other":          {false, func(h *history) { h.set(40, 50, "2", "key_replaced", 2, "a") }},
		"a device is not replaced by itself": {false, func(h *history) { h.replace(20, 30, "1", OK); h.set(40, 50, "1", Replaced, 2, "a") }},
		"what the old device was told of nothing is the new one's": {true, func(h *history) {
			h.kill(12, 14)
			h.set(12, 14, "2", "unavailable", 2, "a")
			h.replace(20, 30, "1", OK)
			h.restore(32, 36, "2")
			h.revoke(37, 38, "2", OK)
			h.grant(39, 40, "2", OK, Terms{})
			h.read(41, 50, "released", 1, 2)
		}},
		"what a reader suspended it does not read": {false, func(h *history) { h.add(20, 30, "acme/1", Suspend, OK, nil); h.read(40, 50, "released", 1, 1) }},
		"until the owner's device hears of it": {true, func(h *history) {
			h.add(20, 30, "acme/1", Suspend, OK, nil)
			h.read(31, 32, "suspended", 0, 0)
			h.synced(33, 36)
			h.read(40, 50, "released", 1, 1)
		}},
		"and then it does": {false, func(h *history) {
			h.add(20, 30, "acme/1", Suspend, OK, nil)
			h.synced(33, 36)
			h.read(40, 50, "suspended", 0, 0)
		}},
		"or grants again": {false, func(h *history) {
			h.add(20, 30, "acme/1", Suspend, OK, nil)
			h.grant(33, 36, "2", OK, Terms{})
			h.read(40, 50, "suspended", 0, 0)
		}},
		"nor what is no news": {false, func(h *history) {
			h.read(12, 14, "released", 1, 1)
			h.add(20, 30, "acme/1", Suspend, OK, nil)
			h.read(40, 50, "unchanged", 0, 1)
			(*h)[len(*h)-1].Items[0].Known = 1
		}},
		"what was answered is read":     {true, func(h *history) { h.answer(20, 30, OK, nil, "b"); h.readOf("b", "released") }},
		"what was denied is not":        {false, func(h *history) { h.answer(20, 30, OK, nil); h.readOf("b", "released") }},
		"nor is what was not asked for": {false, func(h *history) { h.answer(20, 30, OK, nil, "a", "b", "c") }},
		"which is refused":              {true, func(h *history) { h.answer(20, 30, "wider_than_asked", nil, "b", "c"); h.readOf("b", "no_grant") }},
		"and gives nothing":             {false, func(h *history) { h.answer(20, 30, "wider_than_asked", nil, "b", "c"); h.readOf("b", "released") }},
		"an answer that was given gives nothing": {false, func(h *history) {
			h.answer(20, 30, OK, func(e *Event) { e.Again = true }, "b")
		}},
		"nor does one that comes too late": {false, func(h *history) {
			h.answer(20, 30, OK, func(e *Event) { e.Over, e.Terms.Waits = true, 1 }, "b")
		}},
		"what was denied is not asked for again": {true, func(h *history) { h.answer(20, 30, OK, nil, "a"); h.ask(40, 50, Ask, "asked_again_too_soon", "b") }},
		"whoever is to state it":                 {true, func(h *history) { h.answer(20, 30, OK, nil, "a"); h.ask(40, 50, Specify, "asked_again_too_soon", "b") }},
		"but what was granted may be":            {false, func(h *history) { h.answer(20, 30, OK, nil, "a"); h.ask(40, 50, Ask, "asked_again_too_soon", "a") }},
		"and what nobody asked for":              {false, func(h *history) { h.answer(20, 30, OK, nil, "a"); h.ask(40, 50, Ask, "asked_again_too_soon", "c") }},
		"and what another was denied": {false, func(h *history) {
			h.answer(20, 30, OK, func(e *Event) { e.Reader = "globex" }, "a")
			h.ask(40, 50, Ask, "asked_again_too_soon", "b")
		}},
		"and what is denied later": {false, func(h *history) { h.ask(12, 14, Ask, "asked_again_too_soon", "b"); h.answer(20, 30, OK, nil, "a") }},
		"of an answer that was lost nobody knows": {true, func(h *history) {
			h.kill(20, 30)
			h.answer(20, 30, "unavailable", nil, "a")
			h.ask(40, 50, Ask, "asked_again_too_soon", "a")
		}},
		"nor is what was taken back": {true, func(h *history) {
			h.add(20, 30, "ana/1", Stop, OK, func(e *Event) { e.Reader, e.Fields = "acme", []string{"a"} })
			h.ask(40, 50, Ask, "asked_again_too_soon", "a")
		}},
		"but of that alone": {false, func(h *history) {
			h.add(20, 30, "ana/1", Stop, OK, func(e *Event) { e.Reader, e.Fields = "acme", []string{"a"} })
			h.ask(40, 50, Ask, "asked_again_too_soon", "b")
		}},
		"a withdrawal stops": {false, func(h *history) {
			h.answer(20, 30, OK, nil, "b")
			h.add(32, 36, "ana/1", Stop, OK, func(e *Event) { e.Reader, e.Fields = "acme", []string{"b"} })
			h.readOf("b", "released")
		}},
		"a source deposits what was ordered": {true, func(h *history) { h.specified(20, 30, OK, Terms{}); h.deposit(40, 50, OK, 2, "b") }},
		"not what was not":                   {false, func(h *history) { h.specified(20, 30, OK, Terms{}); h.deposit(40, 50, OK, 2, "a") }},
		"what was not is refused":            {true, func(h *history) { h.specified(20, 30, OK, Terms{}); h.deposit(40, 50, "wider_than_asked", 2, "a") }},
		"not the other":                      {false, func(h *history) { h.specified(20, 30, OK, Terms{}); h.deposit(40, 50, "wider_than_asked", 2, "b") }},
		"not without an answer":              {false, func(h *history) { h.deposit(40, 50, OK, 2, "b") }},
		"not before it":                      {false, func(h *history) { h.deposit(12, 14, OK, 2, "b"); h.specified(20, 30, OK, Terms{}) }},
		"nor after a denial": {false, func(h *history) {
			h.specified(20, 30, "consent_expired", Terms{Waits: 1})
			h.deposit(40, 50, OK, 2, "b")
		}},
		"nor when its time is over": {false, func(h *history) { h.specified(20, 30, OK, Terms{For: 1e9}); h.deposit(2500, 2510, OK, 2, "b") }},
		"nor after the owner ended what it may write": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.add(32, 36, "ana/1", EndWrite, OK, func(e *Event) { e.Reader = "globex" })
			h.deposit(40, 50, OK, 2, "b")
		}},
		"what was deposited is read": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(32, 36, OK, 2, "b")
			h.readOf("b", "released")
		}},
		"by the source": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(32, 36, OK, 2, "b")
			h.readOf("b", "released")
			it := &(*h)[len(*h)-1].Items[0]
			it.Number, it.Author = 2, "globex"
		}},
		"who collects is told that a value is not the source's": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.readOf("b", "not_the_source")
			(*h)[len(*h)-1].Do, (*h)[len(*h)-1].Source, (*h)[len(*h)-1].About = Collect, "globex", "1"
		}},
		"and who reads is not": {false, func(h *history) { h.specified(20, 30, OK, Terms{}); h.readOf("b", "not_the_source") }},
		"nothing is deposited twice": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(32, 36, OK, 2, "b")
			h.deposit(40, 50, OK, 3, "b")
		}},
		"but again, if the answer was lost": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.kill(32, 36)
			h.deposit(32, 36, "unavailable", 2, "b")
			h.deposit(40, 50, "order_used", 3, "b")
		}},
		"whoever is looked up by introduction only is not by strangers": {false, func(h *history) { h.add(20, 30, "globex/1", Register, OK, nil); h.lookUp(40, 50, OK) }},
		"who are refused":            {true, func(h *history) { h.add(20, 30, "globex/1", Register, OK, nil); h.lookUp(40, 50, "not_introduced") }},
		"not if it is for everybody": {false, func(h *history) { h.lookUp(40, 50, "not_introduced") }},
		"but by who was introduced": {true, func(h *history) {
			h.add(20, 30, "globex/1", Register, OK, nil)
			h.introduce(32, 36)
			h.lookUp(40, 50, OK)
		}},
		"and is not refused": {false, func(h *history) {
			h.add(20, 30, "globex/1", Register, OK, nil)
			h.introduce(32, 36)
			h.lookUp(40, 50, "not_introduced")
		}},
		"the password opens the profile":       {true, func(h *history) { h.password(20, 30, "1", OK, "one"); h.guess(40, 50, OK, "one") }},
		"another one does not":                 {false, func(h *history) { h.password(20, 30, "1", OK, "one"); h.guess(40, 50, OK, "two") }},
		"nor any if there is none":             {false, func(h *history) { h.guess(40, 50, OK, "one") }},
		"the password is not said to be wrong": {false, func(h *history) { h.password(20, 30, "1", OK, "one"); h.guess(40, 50, "password_wrong", "one") }},
		"one that was changed does not open it": {false, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.password(20, 30, "1", OK, "two")
			h.guess(40, 50, OK, "one")
		}},
		"while it is changed, both": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.password(20, 60, "1", OK, "two")
			h.guess(22, 30, OK, "two")
		}},
		"of a change whose answer was lost too": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.kill(20, 30)
			h.password(20, 30, "1", "unavailable", "two")
			h.guess(40, 50, OK, "one")
		}},
		"an eleventh guess": {false, func(h *history) {
			h.guessed(10)
			h.guess(400, 410, "password_wrong", "two")
		}},
		"is refused": {true, func(h *history) {
			h.guessed(10)
			h.guess(400, 410, "password_locked", "one")
		}},
		"the tenth is not": {false, func(h *history) {
			h.guessed(9)
			h.guess(400, 410, "password_locked", "two")
		}},
		"nor the eleventh after a right one": {false, func(h *history) {
			h.guessed(9)
			h.guess(400, 410, OK, "one")
			h.guess(420, 430, "password_locked", "two")
		}},
		"or after the owner's device began anew": {false, func(h *history) {
			h.guessed(10)
			h.add(400, 410, "ana/1", Unlock, OK, nil)
			h.guess(420, 430, "password_locked", "one")
		}},
		"a crash does not begin anew": {false, func(h *history) {
			h.guessed(10)
			h.add(400, 410, "keys", Kill, OK, nil)
			h.guess(420, 430, "password_wrong", "two")
		}},
		"a sheet works":          {true, func(h *history) { h.sheet(12, 14, "1", KitPrint, OK, false); h.rescue(20, 30, "2", OK, 12) }},
		"and must work":          {false, func(h *history) { h.sheet(12, 14, "1", KitPrint, OK, false); h.rescue(20, 30, "2", "kit_wrong", 12) }},
		"another sheet does not": {false, func(h *history) { h.sheet(12, 14, "1", KitPrint, OK, false); h.rescue(20, 30, "2", OK, 13) }},
		"nor one that was replaced": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.sheet(15, 16, "1", KitReplace, OK, true)
			h.rescue(20, 30, "2", OK, 12)
		}},
		"of which the person is told": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.sheet(15, 16, "1", KitReplace, OK, false)
		}},
		"but not if there was none":    {false, func(h *history) { h.sheet(12, 14, "1", KitReplace, OK, true) }},
		"no sheet is ended in silence": {false, func(h *history) { h.sheet(12, 14, "1", KitPrint, OK, false); h.sheet(15, 16, "1", KitPrint, OK, false) }},
		"nor by another device, which would have to ask first": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.sheet(15, 16, "2", KitReplace, OK, true)
		}},
		"and then may replace it": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.sheet(15, 16, "2", KitPrint, "outdated", false)
			h.sheet(17, 18, "2", KitReplace, OK, true)
			(*h)[len(*h)-1].Again = true
			h.rescue(20, 30, "1", "kit_wrong", 12)
		}},
		"a sheet that was switched off opens nothing": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.sheet(15, 16, "1", KitOff, OK, false)
			h.rescue(20, 30, "2", OK, 12)
		}},
		"one whose answer was lost may be in force": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.sheet(15, 16, "1", KitReplace, "unavailable", false)
			h.rescue(20, 30, "2", "kit_wrong", 12)
		}},
		"or not": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.sheet(15, 16, "1", KitReplace, "unavailable", false)
			h.rescue(20, 30, "2", OK, 12)
		}},
		"which ends with no word to the device that never showed it": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.sheet(15, 16, "1", KitReplace, "unavailable", false)
			h.sheet(17, 18, "1", KitPrint, OK, false)
		}},
		"nor if it replaces it": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.sheet(15, 16, "1", KitReplace, "unavailable", false)
			h.sheet(17, 18, "1", KitReplace, OK, false)
		}},
		"but another device asks first": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.add(15, 16, "ana/2", KitReplace, "unavailable", func(e *Event) { e.Number, e.Again = 15, true })
			h.sheet(17, 18, "1", KitPrint, OK, false)
		}},
		"a password ends no sheet": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.password(15, 16, "1", OK, "one")
			h.rescue(20, 30, "2", "kit_wrong", 12)
		}},
		"a device that took over what another did, and no more, is told that it would end the sheet": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.add(15, 16, "ana/2", Password, "unavailable", func(e *Event) { e.Attack, e.Again = "one", true })
			h.password(17, 18, "2", EndsSheet, "one")
			h.rescue(20, 30, "2", OK, 12)
		}},
		"and not the password, which there is none of": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.add(15, 16, "ana/2", Password, "unavailable", func(e *Event) { e.Attack, e.Again = "one", true })
			h.password(17, 18, "2", EndsWord, "one")
		}},
		"nor is the one that printed it": {false, func(h *history) { h.sheet(12, 14, "1", KitPrint, OK, false); h.password(15, 16, "1", EndsSheet, "one") }},
		"nor one that does not know":     {false, func(h *history) { h.sheet(12, 14, "1", KitPrint, OK, false); h.password(15, 16, "2", EndsSheet, "one") }},
		"nor who means to end it": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.add(15, 16, "ana/2", Password, "unavailable", func(e *Event) { e.Attack, e.Again = "one", true })
			h.add(17, 18, "ana/2", Password, EndsSheet, func(e *Event) { e.Attack, e.Again = "one", true })
		}},
		"but one of a new root does": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.replace(15, 16, "1", OK)
			h.password(17, 18, "1", OK, "one")
			h.rescue(20, 30, "2", OK, 12)
		}},
		"a sheet of before a new root makes no device that goes on": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.replace(15, 16, "1", OK)
			h.rescue(20, 30, "2", OK, 12)
			h.set(40, 50, "2", OK, 2, "a")
		}},
		"but one that is told why": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.replace(15, 16, "1", OK)
			h.rescue(20, 30, "2", OK, 12)
			h.set(40, 50, "2", Replaced, 2, "a")
		}},
		"also where that device had replaced it": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.replace(15, 16, "1", OK)
			h.rescue(20, 30, "1", OK, 12)
			h.set(40, 50, "1", Replaced, 2, "a")
		}},
		"one of after it does go on": {false, func(h *history) {
			h.replace(11, 12, "1", OK)
			h.sheet(13, 14, "1", KitPrint, OK, false)
			h.rescue(20, 30, "2", OK, 13)
			h.set(40, 50, "2", Replaced, 2, "a")
		}},
		"it publishes nothing anew": {false, func(h *history) { h.rescuedAfterANewRoot() }},
		"unless what others wrote is under the root before": {true, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(12, 13, "1", OK, 2)
			h.rescuedAfterANewRoot()
		}},
		"what is switched off after a new root opens nothing": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.replace(15, 16, "1", OK)
			h.add(17, 18, "ana/1", SwitchOff, OK, nil)
			h.rescue(20, 30, "2", OK, 12)
		}},
		"but not what another device set since": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.replace(15, 16, "1", OK)
			h.restore(17, 18, "2")
			h.sheet(19, 20, "2", KitPrint, OK, false)
			(*h)[len(*h)-1].Again = true
			h.add(21, 22, "ana/1", SwitchOff, OK, nil)
			h.rescue(30, 40, "2", "kit_wrong", 19)
		}},
		"a device that was made with a sheet has everything": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.set(15, 16, "1", OK, 2, "a")
			h.rescue(20, 30, "2", OK, 12)
			h.synced(40, 50)
		}},
		"until it syncs it knows of nothing": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.rescue(20, 30, "1", OK, 12)
			h.rotate(40, 50, "1", NoField)
		}},
		"as one that was added":  {true, func(h *history) { h.pair(20, 30, "1", OK, ""); h.rotate(40, 50, "1", NoField) }},
		"and is made of nothing": {false, func(h *history) { h.pair(20, 30, "1", NotSame, "wrong"); h.rotate(40, 50, "1", NoField) }},
		"whatever it denies": {true, func(h *history) {
			h.pair(20, 30, "1", OK, "")
			h.answer(32, 36, OK, nil)
			h.rotate(40, 50, "1", NoField)
		}},
		"but it does then": {false, func(h *history) {
			h.pair(20, 30, "1", OK, "")
			h.grant(32, 36, "1", OK, Terms{})
			h.rotate(40, 50, "1", NoField)
		}},
		"if that came to something": {true, func(h *history) {
			h.pair(20, 30, "1", OK, "")
			h.kill(32, 36)
			h.grant(32, 36, "1", "unavailable", Terms{})
			h.rotate(40, 50, "1", NoField)
		}},
		"nor is that so before":                    {false, func(h *history) { h.rotate(12, 14, "1", NoField); h.pair(20, 30, "1", OK, "") }},
		"one that was restored does":               {false, func(h *history) { h.restore(20, 30, "1"); h.rotate(40, 50, "1", NoField) }},
		"unless nobody was to be asked":            {true, func(h *history) { h.kill(20, 30); h.restore(20, 30, "1"); h.rotate(40, 50, "1", NoField) }},
		"who revokes nothing is told of no grant":  {false, func(h *history) { h.add(20, 30, "ana/1", Sync, "no_grant", nil) }},
		"nor of no field who names none":           {false, func(h *history) { h.set(12, 14, "2", OK, 2, "a"); h.add(20, 30, "ana/1", Sync, NoField, nil) }},
		"only an answer is taken back":             {false, func(h *history) { h.set(12, 14, "2", OK, 2, "a"); h.set(20, 30, "1", TakenBack, 3, "a") }},
		"a root that is announced changes nothing": {false, func(h *history) { h.announce(20, 30, "1", OK); h.set(40, 50, "2", Replaced, 2, "a") }},
		"not before its time":                      {false, func(h *history) { h.announce(20, 30, "1", OK); h.succeed(900, 910, "1", OK) }},
		"of which its device is told":              {true, func(h *history) { h.announce(20, 30, "1", OK); h.succeed(900, 910, "1", "succession_pending") }},
		"but then":                                 {false, func(h *history) { h.announce(20, 30, "1", OK); h.succeed(4000, 4010, "1", "succession_pending") }},
		"and then the other device does not go on": {false, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.succeed(4000, 4010, "1", OK)
			h.set(4020, 4030, "2", OK, 2, "a")
		}},
		"unless it has the root too": {true, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.restore(32, 36, "2")
			h.succeed(4000, 4010, "2", OK)
			h.set(4020, 4030, "1", OK, 2, "a")
		}},
		"and then it goes on": {false, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.restore(32, 36, "2")
			h.succeed(4000, 4010, "2", OK)
			h.set(4020, 4030, "1", Replaced, 2, "a")
		}},
		"readers do": {true, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.succeed(4000, 4010, "1", OK)
			h.read(4005, 4020, "released", 1, 2)
		}},
		"nobody carries out what was not announced": {false, func(h *history) { h.succeed(4000, 4010, "1", OK) }},
		"nor what somebody objected to": {false, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.object(40, 50, "2", OK)
			h.succeed(4000, 4010, "1", OK)
		}},
		"whose device has nothing to do": {true, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.object(40, 50, "2", OK)
			h.succeed(4000, 4010, "1", NotAsked)
			h.announce(4020, 4030, "1", OK)
		}},
		"an objection is heard":                 {false, func(h *history) { h.announce(20, 30, "1", OK); h.object(40, 50, "2", "not_found") }},
		"where there is something to object to": {false, func(h *history) { h.object(40, 50, "2", OK) }},
		"of two announcements the second waits": {false, func(h *history) { h.announce(20, 30, "1", OK); h.announce(40, 50, "2", OK) }},
		"the recovery key does not": {true, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.replace(40, 50, "2", OK)
			h.set(60, 70, "1", Replaced, 2, "a")
		}},
		"and ends it": {false, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.replace(40, 50, "2", OK)
			h.restore(60, 70, "1")
			h.succeed(4000, 4010, "1", OK)
		}},
		"a device whose announcement was refused has none": {false, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.announce(40, 50, "2", "succession_pending")
			h.replace(60, 70, "2", "succession_pending")
		}},
		"a key server takes what a root signs which was announced": {true, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.succeed(4000, 4010, "1", OK)
			h.password(4020, 4030, "1", OK, "one")
		}},
		"and refuses nobody for want of the recovery key": {false, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.succeed(4000, 4010, "1", OK)
			h.password(4020, 4030, "1", "not_the_recovery_key", "one")
		}},
		"a closed account is not read": {false, func(h *history) { h.close(20, 30, "1", OK); h.read(40, 50, "released", 1, 1) }},
		"but refused":                  {true, func(h *history) { h.close(20, 30, "1", OK); h.read(40, 50, "no_grant", 0, 0) }},
		"not for another reason":       {false, func(h *history) { h.close(20, 30, "1", OK); h.read(40, 50, "not_found", 0, 0) }},
		"nor before":                   {false, func(h *history) { h.read(12, 14, "no_grant", 0, 0); h.close(20, 30, "1", OK) }},
		"while it is closed, both": {true, func(h *history) {
			h.close(20, 50, "1", OK)
			h.read(25, 28, "released", 1, 1)
			h.read(30, 40, "grant_revoked", 0, 0)
		}},
		"not in the other order": {false, func(h *history) {
			h.close(20, 50, "1", OK)
			h.read(25, 28, "no_grant", 0, 0)
			h.read(30, 40, "released", 1, 1)
		}},
		"a closing whose answer was lost may be": {true, func(h *history) {
			h.kill(20, 30)
			h.close(20, 30, "1", NotStopped)
			h.read(40, 50, "released", 1, 1)
			h.read(60, 70, "no_grant", 0, 0)
		}},
		"until the device says so": {false, func(h *history) {
			h.kill(20, 30)
			h.close(20, 30, "1", NotStopped)
			h.close(32, 36, "1", OK)
			h.read(40, 50, "released", 1, 1)
		}},
		"also of a storefront that was not told": {false, func(h *history) {
			h.kill(20, 30)
			h.close(20, 30, "1", Untold)
			h.read(40, 50, "released", 1, 1)
		}},
		"its lost answer while all is well":        {false, func(h *history) { h.close(20, 30, "1", NotStopped) }},
		"nothing is published in a closed account": {false, func(h *history) { h.close(20, 30, "1", OK); h.set(40, 50, "2", OK, 2, "a") }},
		"the other device is told":                 {true, func(h *history) { h.close(20, 30, "1", OK); h.set(40, 50, "2", "account_closed", 2, "a") }},
		"only if it is":                            {false, func(h *history) { h.set(40, 50, "2", "account_closed", 2, "a") }},
		"it waits for the end of nothing":          {false, func(h *history) { h.close(20, 30, "1", OK); h.revoke(40, 50, "2", NotStopped) }},
		"which it is told is so":                   {true, func(h *history) { h.close(20, 30, "1", OK); h.revoke(40, 50, "2", "account_closed") }},
		"unless nobody says it": {true, func(h *history) {
			h.close(20, 30, "1", OK)
			h.kill(40, 50)
			h.revoke(40, 50, "2", NotStopped)
		}},
		"and may close it too": {true, func(h *history) { h.close(20, 30, "1", OK); h.close(40, 50, "2", OK) }},
		"nor does anybody write in it": {false, func(h *history) {
			h.letWrite(12, 14, GrantWrite, OK)
			h.close(20, 30, "1", OK)
			h.write(40, 50, "1", OK, 2)
		}},
		"who is refused": {true, func(h *history) {
			h.letWrite(12, 14, GrantWrite, OK)
			h.close(20, 30, "1", OK)
			h.write(40, 50, "1", "no_write_grant", 2)
		}},
		"who finds it closed tells of it": {false, func(h *history) {
			h.kill(20, 30)
			h.close(20, 30, "1", NotStopped)
			h.read(40, 50, "no_grant", 0, 0)
			h.read(60, 70, "released", 1, 1)
		}},
		"but not who is told of something else": {true, func(h *history) {
			h.revoke(12, 14, "1", OK)
			h.kill(20, 30)
			h.close(20, 30, "1", NotStopped)
			h.read(40, 50, "grant_revoked", 0, 0)
			h.set(60, 70, "2", OK, 2, "a")
		}},
		"a device of the root before closes none": {false, func(h *history) { h.replace(20, 30, "1", OK); h.close(40, 50, "2", OK) }},
		"before it is closed": {false, func(h *history) {
			h.replace(20, 30, "1", OK)
			h.close(40, 50, "2", OK)
			h.close(60, 70, "1", OK)
		}},
		"but hears that it is": {true, func(h *history) {
			h.replace(12, 14, "1", OK)
			h.close(20, 30, "1", OK)
			h.close(40, 50, "2", OK)
		}},
		"and nothing else":                    {false, func(h *history) { h.close(20, 30, "1", OK); h.close(40, 50, "2", "no_grant") }},
		"nor does who ends something":         {false, func(h *history) { h.close(20, 30, "1", OK); h.revoke(40, 50, "2", "internal") }},
		"while it is being closed, things go": {true, func(h *history) { h.close(20, 60, "1", OK); h.set(30, 40, "2", OK, 2, "a") }},
		"not while it is closed once more": {false, func(h *history) {
			h.close(20, 30, "1", OK)
			h.close(35, 60, "1", OK)
			h.synced(40, 50)
		}},
		"a lost closing explains what waits": {true, func(h *history) {
			h.synced(12, 14)
			h.kill(20, 30)
			h.close(20, 30, "1", NotStopped)
			h.revoke(40, 50, "2", NotStopped)
		}},
		"also what is to be rotated": {true, func(h *history) {
			h.synced(12, 14)
			h.kill(20, 30)
			h.close(20, 30, "1", NotStopped)
			h.revoke(40, 50, "2", NotRotated)
		}},
		"a device that is made anew then has no field": {true, func(h *history) {
			h.synced(12, 14)
			h.close(20, 30, "1", OK)
			h.restore(32, 36, "2")
			h.rotate(40, 50, "2", NoField)
		}},
		"and no grant": {true, func(h *history) {
			h.synced(12, 14)
			h.close(20, 30, "1", OK)
			h.restore(32, 36, "2")
			h.revoke(40, 50, "2", "no_grant")
		}},
		"a closing that others overtake waits": {true, func(h *history) { h.set(20, 60, "2", OK, 2, "a"); h.close(30, 50, "1", NotStopped) }},
		"not for what is done": {false, func(h *history) {
			h.set(20, 25, "2", OK, 2, "a")
			h.close(30, 50, "1", NotStopped)
			h.set(60, 70, "2", OK, 3, "a")
		}},
		"nor for its own device": {false, func(h *history) {
			h.set(12, 14, "2", OK, 2, "a")
			h.kill(20, 25)
			h.set(20, 25, "1", "unavailable", 3, "a")
			h.close(30, 50, "1", NotStopped)
		}},
		"or what is no link of the chain": {false, func(h *history) {
			h.set(12, 14, "2", OK, 2, "a")
			h.sheet(35, 45, "2", KitPrint, OK, false)
			h.close(30, 50, "1", NotStopped)
		}},
		"or came to nothing": {false, func(h *history) {
			h.set(12, 14, "2", OK, 2, "a")
			h.rotate(35, 45, "2", NoField)
			h.close(30, 50, "1", NotStopped)
		}},
		"or came too late": {false, func(h *history) {
			h.set(12, 14, "2", OK, 2, "a")
			h.set(35, 45, "2", "account_closed", 3, "a")
			h.close(30, 50, "1", NotStopped)
		}},
		"it is not opened by a thaw": {false, func(h *history) { h.close(20, 30, "1", OK); h.add(40, 50, "ana/2", Thaw, OK, nil) }},
		"a root is replaced again":   {false, func(h *history) { h.replace(20, 30, "1", OK); h.replace(40, 50, "1", "succession_pending") }},
		"once the first time is over": {true, func(h *history) {
			h.kill(20, 30)
			h.replace(20, 30, "1", "unavailable")
			h.replace(40, 50, "1", "succession_pending")
		}},
		"an expired grant of what is not there": {true, func(h *history) { h.grantOfNothing(Terms{For: time.Second}); h.readLater("c", "grant_expired") }},
		"does not say so":                       {false, func(h *history) { h.grantOfNothing(Terms{For: time.Second}); h.readLater("c", "not_found") }},
		"nor does one to come":                  {false, func(h *history) { h.grantOfNothing(Terms{From: time.Minute}); h.readLater("c", "not_found") }},
		"which is told":                         {true, func(h *history) { h.grantOfNothing(Terms{From: time.Minute}); h.readLater("c", "grant_not_yet_valid") }},
		"one in force does":                     {true, func(h *history) { h.grantOfNothing(Terms{}); h.readLater("c", "not_found") }},
		"and has not expired": {false, func(h *history) {
			h.grantOfNothing(Terms{})
			h.letWriteC()
			h.readLater("c", "grant_expired")
		}},
		"an expired one does not say so where others may write": {false, func(h *history) {
			h.grantOfNothing(Terms{For: time.Second})
			h.letWriteC()
			h.readLater("c", "not_found")
		}},
		"a device is added":                        {true, func(h *history) { h.pair(20, 30, "2", OK, "") }},
		"not with another word":                    {false, func(h *history) { h.pair(20, 30, "2", OK, "wrong") }},
		"it is refused":                            {true, func(h *history) { h.pair(20, 30, "2", NotSame, "wrong") }},
		"and the right one is not":                 {false, func(h *history) { h.pair(20, 30, "2", NotSame, "") }},
		"two devices that do not meet for nothing": {false, func(h *history) { h.pair(20, 30, "2", "unavailable", "") }},
		"or because of a new root that is none":    {false, func(h *history) { h.pair(20, 30, "2", "succession_pending", "") }},
		"but because of one that is announced":     {true, func(h *history) { h.announce(12, 14, "1", OK); h.pair(20, 30, "2", "succession_pending", "") }},
		"which is not handed over":                 {false, func(h *history) { h.announce(12, 14, "1", OK); h.pair(20, 30, "2", OK, "") }},
		"unless it was taken back": {true, func(h *history) {
			h.announce(12, 14, "1", OK)
			h.object(16, 18, "1", OK)
			h.pair(20, 30, "2", OK, "")
		}},
		"one that was added has no recovery key": {true, func(h *history) { h.pair(20, 30, "2", OK, ""); h.replace(40, 50, "2", NoRecovery) }},
		"and replaces no root":                   {false, func(h *history) { h.pair(20, 30, "2", OK, ""); h.replace(40, 50, "2", OK) }},
		"unless another one did before, which makes a backup": {true, func(h *history) {
			h.replace(12, 14, "1", OK)
			h.pair(20, 30, "2", OK, "")
			h.replace(40, 50, "2", OK)
		}},
		"the first one has it still": {false, func(h *history) { h.pair(20, 30, "2", OK, ""); h.replace(40, 50, "1", "succession_pending") }},
		"and signs with it":          {false, func(h *history) { h.pair(20, 30, "2", OK, ""); h.replace(40, 50, "1", NoRecovery) }},
		"one that was added goes on with a new root": {true, func(h *history) {
			h.replace(12, 14, "1", OK)
			h.pair(20, 30, "2", OK, "")
			h.set(40, 50, "2", OK, 2, "a")
		}},
		"and not with one that came after": {false, func(h *history) {
			h.pair(12, 14, "2", OK, "")
			h.replace(20, 30, "1", OK)
			h.set(40, 50, "2", OK, 2, "a")
		}},
		"nor is it told that it is old": {false, func(h *history) {
			h.replace(12, 14, "1", OK)
			h.pair(20, 30, "2", OK, "")
			h.set(40, 50, "2", Replaced, 2, "a")
		}},
		"a device of the root before adds none": {false, func(h *history) { h.replace(12, 14, "1", OK); h.pair(20, 30, "1", OK, "") }},
		"it is told so":                         {true, func(h *history) { h.replace(12, 14, "1", OK); h.pair(20, 30, "1", Replaced, "") }},
		"one of the newest root is not":         {false, func(h *history) { h.replace(12, 14, "1", OK); h.pair(20, 30, "2", Replaced, "") }},
		"what was announced is not handed over": {false, func(h *history) {
			h.announce(12, 14, "1", "unavailable")
			h.pair(20, 30, "2", OK, "")
			h.replace(40, 50, "2", "succession_pending")
			h.set(60, 70, "2", "succession_pending", 2, "a")
		}},
		"one that was added knows the account": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.pair(20, 30, "2", OK, "")
			h.sheet(40, 50, "2", KitOff, "no_account", false)
		}},
		"and its newest version": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.pair(20, 30, "2", OK, "")
			h.sheet(40, 50, "2", KitReplace, OK, true)
		}},
		"not a version to come": {false, func(h *history) {
			h.pair(12, 14, "2", OK, "")
			h.sheet(20, 30, "1", KitPrint, OK, false)
			h.sheet(40, 50, "2", KitReplace, OK, true)
		}},
		"nor an account where there is none": {false, func(h *history) { h.pair(20, 30, "2", OK, ""); h.sheet(40, 50, "2", KitOff, OK, false) }},
		"a closed account gets no device":    {false, func(h *history) { h.close(12, 14, "1", OK); h.pair(20, 30, "2", OK, "") }},

		"a password that was deleted": {false, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.drop(20, 30, "1", OK)
			h.guess(40, 50, OK, "one")
		}},
		"opens nothing": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.drop(20, 30, "1", OK)
			h.guess(40, 50, "password_wrong", "one")
		}},
		"nor does a sheet": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.drop(20, 30, "1", OK)
			h.rescue(40, 50, "2", OK, 12)
		}},
		"as its holder is told": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.drop(20, 30, "1", OK)
			h.rescue(40, 50, "2", "kit_wrong", 12)
		}},
		"whichever device deleted it": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.add(16, 18, "ana/2", Password, OK, func(e *Event) { e.Attack, e.Again = "two", true })
			h.drop(20, 30, "1", OK)
			h.guess(40, 50, "password_wrong", "two")
		}},
		"if its answer is lost, it may open": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.kill(20, 30)
			h.drop(20, 30, "1", "unavailable")
			h.guess(40, 50, OK, "one")
		}},
		"or may not": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.kill(20, 30)
			h.drop(20, 30, "1", "unavailable")
			h.guess(40, 50, "password_wrong", "one")
		}},
		"a device without an account": {true, func(h *history) { h.password(12, 14, "1", OK, "one"); h.drop(20, 30, "2", NotAsked) }},
		"deletes none":                {false, func(h *history) { h.password(12, 14, "1", OK, "one"); h.drop(20, 30, "2", OK) }},
		"one that has one does":       {false, func(h *history) { h.password(12, 14, "1", OK, "one"); h.drop(20, 30, "1", NotAsked) }},
		"nothing is deleted twice":    {false, func(h *history) { h.password(12, 14, "1", OK, "one"); h.drop(20, 30, "1", OK); h.drop(40, 50, "1", OK) }},
		"a password is set anew after that": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.drop(20, 30, "1", OK)
			h.password(32, 34, "1", OK, "two")
			h.guess(40, 50, OK, "two")
		}},
		"also by a device that had no account": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.drop(20, 30, "1", OK)
			h.password(32, 34, "2", OK, "two")
		}},
		"but not by one that had it": {false, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.pair(15, 16, "2", OK, "")
			h.drop(20, 30, "1", OK)
			h.password(32, 34, "2", OK, "two")
		}},
		"which is told of an older state": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.pair(15, 16, "2", OK, "")
			h.drop(20, 30, "1", OK)
			h.password(32, 34, "2", "outdated", "two")
			h.add(36, 38, "ana/2", Password, "rollback", func(e *Event) { e.Attack, e.Again = "two", true })
		}},
		"only then": {false, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.add(36, 38, "ana/2", Password, "rollback", func(e *Event) { e.Attack, e.Again = "two", true })
		}},
		"a deletion gives no tries back": {false, func(h *history) {
			h.guessed(10)
			h.drop(400, 410, "1", OK)
			h.guess(500, 510, "password_wrong", "two")
		}},
		"ten are ten": {true, func(h *history) {
			h.guessed(10)
			h.drop(400, 410, "1", OK)
			h.guess(500, 510, "password_locked", "two")
		}},
		"a writer whose permission ended is refused": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWrite(32, 36, EndWrite, OK)
			h.write(40, 50, "1", "no_write_grant", 2)
		}},
		"and what was rejected is not read": {true, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(52, 56, Reject, OK)
			h.read(60, 70, "released", 1, 2)
		}},
		"who gave it up is told":     {true, func(h *history) { h.giveUp(20, 30, OK); h.read(40, 50, "grant_revoked", 0, 0) }},
		"who was denied has nothing": {true, func(h *history) { h.answer(20, 30, OK, nil); h.readOf("b", "no_grant") }},
		"a sheet that works is told of": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.sheet(20, 30, "1", KitPrint, HasSheet, false)
		}},
		"a closed account leaves nothing":        {true, func(h *history) { h.close(20, 30, "1", OK); h.forge(40, 50, "left", "account_closed") }},
		"what was answered is told":              {true, func(h *history) { h.answer(20, 30, "already_answered", func(e *Event) { e.Again = true }, "b") }},
		"nothing that was asked is not answered": {false, func(h *history) { h.answer(20, 30, OK, func(e *Event) { e.Asked = nil }) }},
		"an owner is told that it is too late":   {true, func(h *history) { h.answer(20, 30, "consent_expired", func(e *Event) { e.Over = true }, "b") }},
		"or that it is too late by now":          {true, func(h *history) { h.answer(20, 30, "consent_expired", func(e *Event) { e.Terms.Waits = 1e9 }, "b") }},
		"not of a request without an end":        {false, func(h *history) { h.answer(20, 30, "consent_expired", nil, "b") }},
		"nor anything else of an answer":         {false, func(h *history) { h.answer(20, 30, "internal", nil, "b") }},
		"a reader's device of the keys before asks no more": {true, func(h *history) {
			h.add(20, 30, "acme/1", Suspend, OK, nil)
			h.ask(40, 50, Ask, Replaced, "a")
			(*h)[len(*h)-1].Who = "acme/2"
		}},
		"a reader who hears has nothing that waits": {false, func(h *history) { h.kill(40, 50); h.ask(40, 50, Hear, NotStopped) }},
		"who did not look the source up":            {true, func(h *history) { h.specify(40, 50) }},
		"but only of a source":                      {false, func(h *history) { h.specify(40, 50); (*h)[len(*h)-1].Do = Ask }},
		"not who did":                               {false, func(h *history) { h.lookUp(20, 30, OK); h.specify(40, 50) }},
		"unless that came to nothing": {true, func(h *history) {
			h.add(11, 12, "globex/1", Register, OK, nil)
			h.lookUp(20, 30, "not_introduced")
			h.specify(40, 50)
		}},
		"or was of another":                 {true, func(h *history) { h.lookUp(20, 30, OK); (*h)[len(*h)-1].Reader = "carl"; h.specify(40, 50) }},
		"or came later":                     {true, func(h *history) { h.specify(12, 14); h.lookUp(20, 30, OK) }},
		"or another session did it":         {true, func(h *history) { h.lookUp(20, 30, OK); (*h)[len(*h)-1].Who = "acme/2"; h.specify(40, 50) }},
		"or this one began anew":            {true, func(h *history) { h.lookUp(20, 30, OK); h.add(32, 36, "acme/1", Restart, OK, nil); h.specify(40, 50) }},
		"who asks a closed account is told": {true, func(h *history) { h.close(20, 30, "1", OK); h.ask(40, 50, Ask, "account_closed", "a") }},
		"and nobody else":                   {false, func(h *history) { h.ask(40, 50, Ask, "account_closed", "a") }},
		"an ask that is lost":               {true, func(h *history) { h.kill(40, 50); h.ask(40, 50, Ask, "unavailable", "a") }},
		"is not while all is well":          {false, func(h *history) { h.ask(40, 50, Ask, "unavailable", "a") }},
		"who asks is told nothing else":     {false, func(h *history) { h.ask(40, 50, Ask, "internal", "a") }},
		"a reader hears what was granted":   {true, func(h *history) { h.answer(20, 30, OK, nil, "b"); h.told("b") }},
		"not another field":                 {false, func(h *history) { h.answer(20, 30, OK, nil, "b"); h.told("a") }},
		"nor what another was granted":      {false, func(h *history) { h.answer(20, 30, OK, func(e *Event) { e.Reader = "globex" }, "b"); h.told("b") }},
		"nor what came to nothing":          {false, func(h *history) { h.answer(20, 30, "wider_than_asked", nil, "b", "c"); h.told("b") }},

		"who adds a device to a closed account is told": {true, func(h *history) { h.close(12, 14, "1", OK); h.pair(20, 30, "2", "account_closed", "") }},
		"or of the keys, if the root was replaced":      {true, func(h *history) { h.replace(12, 14, "1", OK); h.pair(20, 30, "1", "key_replaced", "") }},
		"or is not let in":                              {true, func(h *history) { h.replace(12, 14, "1", OK); h.pair(20, 30, "1", "unauthorized", ""); h.cut() }},
		"while it may ask why it is":                    {false, func(h *history) { h.replace(12, 14, "1", OK); h.pair(20, 30, "1", "unauthorized", "") }},
		"and if there is a reason":                      {false, func(h *history) { h.pair(20, 30, "1", "unauthorized", ""); h.cut() }},
		"or what it is about to take back": {true, func(h *history) {
			h.announce(11, 12, "2", OK)
			h.kill(13, 14)
			h.object(13, 14, "1", "unavailable")
			h.pair(20, 30, "2", "succession_pending", "")
		}},
		"or what it is about to replace": {true, func(h *history) {
			h.kill(12, 14)
			h.replace(12, 14, "1", "unavailable")
			h.pair(20, 30, "2", "succession_pending", "")
		}},
		"two devices may miss each other":      {true, func(h *history) { h.kill(20, 30); h.pair(20, 30, "2", "unavailable", "") }},
		"and are told nothing else":            {false, func(h *history) { h.pair(20, 30, "2", "internal", "") }},
		"one may be added before a root comes": {true, func(h *history) { h.pair(12, 14, "2", OK, ""); h.announce(20, 30, "1", OK) }},
		"not after one that is announced again": {false, func(h *history) {
			h.announce(11, 12, "1", OK)
			h.object(13, 14, "1", OK)
			h.announce(15, 16, "1", OK)
			h.pair(20, 30, "2", OK, "")
		}},
		"whatever becomes of it later": {false, func(h *history) { h.announce(12, 14, "1", OK); h.pair(20, 30, "2", OK, ""); h.object(40, 50, "1", OK) }},
		"whatever its device does": {false, func(h *history) {
			h.announce(12, 14, "1", OK)
			h.set(15, 16, "1", OK, 2, "a")
			h.pair(20, 30, "2", OK, "")
		}},
		"or whichever other one is made anew": {false, func(h *history) { h.announce(12, 14, "1", OK); h.restore(15, 16, "2"); h.pair(20, 30, "2", OK, "") }},
		"but after one that came into force":  {true, func(h *history) { h.announce(12, 14, "1", OK); h.replace(15, 16, "1", OK); h.pair(20, 30, "2", OK, "") }},
		"also when its time was over": {true, func(h *history) {
			h.announce(20, 30, "1", OK)
			h.succeed(4000, 4010, "1", OK)
			h.pair(4020, 4030, "2", OK, "")
		}},
		"one that was restored has the recovery key": {false, func(h *history) { h.restore(20, 30, "2"); h.replace(40, 50, "2", NoRecovery) }},
		"also where none was added": {false, func(h *history) {
			h.pair(20, 30, "2", NotSame, "wrong")
			h.restore(32, 36, "2")
			h.replace(40, 50, "2", NoRecovery)
		}},
		"or one was later": {false, func(h *history) {
			h.restore(12, 14, "2")
			h.replace(20, 30, "2", NoRecovery)
			h.pair(40, 50, "1", OK, "")
		}},
		"as has one that was restored later": {false, func(h *history) {
			h.pair(12, 14, "1", OK, "")
			h.replace(20, 30, "2", NoRecovery)
			h.restore(40, 50, "2")
		}},
		"nor does a later root bring it": {false, func(h *history) { h.pair(20, 30, "2", OK, ""); h.replace(40, 50, "2", OK); h.replace(60, 70, "2", OK) }},
		"or one that was not made": {false, func(h *history) {
			h.pair(20, 30, "2", OK, "")
			h.replace(32, 36, "2", NoRecovery)
			h.replace(40, 50, "2", OK)
		}},
		"but a sheet": {true, func(h *history) {
			h.sheet(11, 12, "1", KitPrint, OK, false)
			h.pair(20, 30, "2", OK, "")
			h.rescue(32, 36, "2", OK, 11)
			h.replace(40, 50, "2", OK)
		}},
		"or a backup": {true, func(h *history) { h.pair(12, 14, "1", OK, ""); h.restore(16, 18, "2"); h.replace(40, 50, "2", OK) }},
		"also one that was made for a root to come": {true, func(h *history) {
			h.pair(20, 30, "2", OK, "")
			h.announce(32, 34, "1", OK)
			h.restore(36, 38, "2")
			h.replace(40, 50, "2", OK)
		}},
		"not the other device's": {false, func(h *history) {
			h.sheet(11, 12, "1", KitPrint, OK, false)
			h.pair(20, 30, "2", OK, "")
			h.rescue(32, 36, "1", OK, 11)
			h.replace(40, 50, "2", OK)
		}},
		"one that was added publishes anew what is under the root before": {true, func(h *history) {
			h.replace(11, 12, "1", OK)
			h.read(13, 14, "released", 1, 2)
			h.pair(20, 30, "2", OK, "")
			h.read(40, 50, "released", 1, 3)
		}},
		"where there is one": {false, func(h *history) {
			h.read(13, 14, "released", 1, 1)
			h.pair(20, 30, "2", OK, "")
			h.read(40, 50, "released", 1, 2)
		}},
		"when there is one": {false, func(h *history) {
			h.read(13, 14, "released", 1, 1)
			h.pair(20, 30, "2", OK, "")
			h.read(32, 36, "released", 1, 2)
			h.replace(40, 50, "1", OK)
		}},
		"and it was made": {false, func(h *history) {
			h.pair(11, 12, "2", OK, "")
			h.replace(13, 14, "2", NoRecovery)
			h.read(15, 16, "released", 1, 1)
			h.pair(20, 30, "2", OK, "")
			h.read(40, 50, "released", 1, 2)
		}},

		"a device takes one thing after the other": {true, func(h *history) { h.unknownThenSet("1"); h.read(60, 70, "released", 3, 3) }},
		"and not the other way round":              {false, func(h *history) { h.unknownThenSet("1"); h.read(60, 70, "released", 2, 2) }},
		"two devices may":                          {true, func(h *history) { h.unknownThenSet("2"); h.read(60, 70, "released", 2, 3) }},
		"who is refused tells of what came last": {false, func(h *history) {
			h.grant(20, 30, "1", OK, Terms{})
			h.revoke(35, 90, "2", OK)
			h.read(25, 45, "grant_revoked", 0, 0)
			h.read(50, 60, "released", 1, 1)
		}},
		"and of what came before": {false, func(h *history) {
			h.revoke(20, 90, "1", OK)
			h.grant(25, 35, "2", OK, Terms{})
			h.read(40, 50, "grant_revoked", 0, 0)
			h.read(60, 70, "released", 1, 1)
		}},
		"what is given up may come back with a new root": {true, func(h *history) { h.giveUp(20, 30, OK); h.replace(25, 36, "1", OK); h.read(40, 50, "released", 1, 1) }},
		"or a device that goes on with it":               {true, func(h *history) { h.giveUp(20, 30, OK); h.restore(25, 36, "2"); h.read(40, 50, "released", 1, 1) }},
		"or is made with a sheet": {true, func(h *history) {
			h.sheet(11, 12, "1", KitPrint, OK, false)
			h.giveUp(20, 30, OK)
			h.rescue(25, 36, "2", OK, 11)
			h.read(40, 50, "released", 1, 1)
		}},
		"or with one that was announced": {true, func(h *history) {
			h.announce(11, 12, "1", OK)
			h.giveUp(4000, 4010, OK)
			h.succeed(4005, 4020, "1", OK)
			h.read(4030, 4040, "released", 1, 1)
		}},
		"or a device that is added after one": {true, func(h *history) {
			h.replace(11, 12, "1", OK)
			h.giveUp(20, 30, OK)
			h.pair(25, 36, "2", OK, "")
			h.read(40, 50, "released", 1, 1)
		}},
		"not with one that is added otherwise": {false, func(h *history) { h.giveUp(20, 30, OK); h.pair(25, 36, "2", OK, ""); h.read(40, 50, "released", 1, 1) }},
		"nor with another field that moves": {false, func(h *history) {
			h.giveUp(20, 30, OK)
			h.add(25, 36, "ana/2", Rotate, OK, func(e *Event) {
				e.Reader, e.Fields, e.Asked, e.Keep, e.Source = "", []string{"b"}, []string{"b"}, false, ""
			})
			h.read(40, 50, "released", 1, 1)
		}},
		"or moved before": {false, func(h *history) { h.rotate(12, 14, "2", OK); h.giveUp(20, 30, OK); h.read(40, 50, "released", 1, 1) }},
		"or did not move": {false, func(h *history) {
			h.giveUp(20, 30, OK)
			h.rotate(25, 36, "2", NoField)
			h.read(40, 50, "released", 1, 1)
		}},
		"but where somebody is let write": {true, func(h *history) {
			h.giveUp(20, 30, OK)
			h.letWrite(25, 36, GrantWrite, OK)
			h.read(40, 50, "released", 1, 1)
		}},
		"or somebody else is stopped": {true, func(h *history) {
			h.giveUp(20, 30, OK)
			h.other(25, 36, Revoke, "a", false, "")
			h.read(40, 50, "released", 1, 1)
		}},
		"or withdrawn from": {true, func(h *history) {
			h.giveUp(20, 30, OK)
			h.other(25, 36, Stop, "a", false, "")
			h.read(40, 50, "released", 1, 1)
		}},
		"if the field moves": {false, func(h *history) {
			h.giveUp(20, 30, OK)
			h.other(25, 36, Revoke, "a", true, "")
			h.read(40, 50, "released", 1, 1)
		}},
		"and it is this field": {false, func(h *history) {
			h.giveUp(20, 30, OK)
			h.other(25, 36, Revoke, "b", false, "")
			h.read(40, 50, "released", 1, 1)
		}},
		"or it is set again that was gone": {true, func(h *history) {
			h.add(11, 12, "ana/1", Remove, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.giveUp(20, 30, OK)
			h.set(25, 36, "2", OK, 2, "a")
			h.read(40, 50, "released", 2, 2)
		}},
		"not if it was there": {false, func(h *history) {
			h.giveUp(20, 30, OK)
			h.set(25, 36, "2", OK, 2, "a")
			h.read(40, 50, "released", 2, 2)
		}},
		"nor if another one was gone": {false, func(h *history) {
			h.add(11, 12, "ana/1", Remove, OK, func(e *Event) { e.Fields = []string{"b"} })
			h.giveUp(20, 30, OK)
			h.set(25, 36, "2", OK, 2, "a")
			h.read(40, 50, "released", 2, 2)
		}},
		"nor if another one is set again": {false, func(h *history) {
			h.add(11, 12, "ana/1", Remove, OK, func(e *Event) { e.Fields = []string{"a"} })
			h.set(13, 14, "1", OK, 2, "a")
			h.giveUp(20, 30, OK)
			h.set(25, 36, "2", OK, 3, "b")
			h.read(40, 50, "released", 2, 3)
		}},
		"or where an answer lets somebody write": {true, func(h *history) {
			h.giveUp(20, 30, OK)
			h.other(25, 36, Answer, "a", false, "carl")
			h.read(40, 50, "released", 1, 1)
		}},
		"not where it does not": {false, func(h *history) {
			h.giveUp(20, 30, OK)
			h.other(25, 36, Answer, "a", false, "")
			h.read(40, 50, "released", 1, 1)
		}},
		"nor for another field of an answer": {false, func(h *history) {
			h.giveUp(20, 30, OK)
			h.other(25, 36, Answer, "b", false, "carl")
			h.read(40, 50, "released", 1, 1)
		}},
		"or where an owner hears of what a reader suspended": {false, func(h *history) {
			h.add(11, 12, "acme/1", Suspend, OK, nil)
			h.synced(13, 14)
			h.giveUp(20, 30, OK)
			(*h)[len(*h)-1].Who = "acme/1"
			h.synced(25, 36)
			h.read(40, 50, "released", 1, 1)
		}},
		"what was taken back need not be given up":           {true, func(h *history) { h.revoke(12, 14, "1", OK); h.giveUp(20, 30, "no_grant") }},
		"what is there may be":                               {false, func(h *history) { h.giveUp(20, 30, "no_grant") }},
		"what is over need not":                              {true, func(h *history) { h.grant(11, 12, "1", OK, Terms{For: time.Second}); h.giveUp(5000, 5010, "no_grant") }},
		"what nobody granted yet is not given up":            {false, func(h *history) { h.giveUpB(11, 12); h.answer(20, 30, OK, nil, "b") }},
		"what somebody granted is":                           {true, func(h *history) { h.answer(11, 12, OK, nil, "b"); h.giveUpB(20, 30) }},
		"who gives up something of a closed account is told": {true, func(h *history) { h.close(11, 12, "1", OK); h.giveUp(20, 30, "account_closed") }},
		"or that nothing is there":                           {true, func(h *history) { h.close(11, 12, "1", OK); h.giveUp(20, 30, "no_grant") }},
		"or of nothing else":                                 {false, func(h *history) { h.close(11, 12, "1", OK); h.giveUp(20, 30, "internal") }},
		"and it is not given up":                             {false, func(h *history) { h.close(11, 12, "1", OK); h.giveUp(20, 30, OK) }},
		"nor is that said of an open one":                    {false, func(h *history) { h.giveUp(20, 30, "account_closed") }},
		"who gives up is told unavailable":                   {true, func(h *history) { h.kill(20, 30); h.giveUp(20, 30, "unavailable") }},
		"not while all is well: unavailable":                 {false, func(h *history) { h.giveUp(20, 30, "unavailable") }},
		"who suspends is told unavailable":                   {true, func(h *history) { h.kill(20, 30); h.suspend(20, 30, "1", "unavailable") }},
		"and not while all is well: unavailable":             {false, func(h *history) { h.suspend(20, 30, "1", "unavailable") }},
		"who gives up is told log_stopped":                   {true, func(h *history) { h.kill(20, 30); h.giveUp(20, 30, "log_stopped") }},
		"not while all is well: log_stopped":                 {false, func(h *history) { h.giveUp(20, 30, "log_stopped") }},
		"who suspends is told log_stopped":                   {true, func(h *history) { h.kill(20, 30); h.suspend(20, 30, "1", "log_stopped") }},
		"and not while all is well: log_stopped":             {false, func(h *history) { h.suspend(20, 30, "1", "log_stopped") }},
		"who gives up is told log_full":                      {true, func(h *history) { h.kill(20, 30); h.giveUp(20, 30, "log_full") }},
		"not while all is well: log_full":                    {false, func(h *history) { h.giveUp(20, 30, "log_full") }},
		"who suspends is told log_full":                      {true, func(h *history) { h.kill(20, 30); h.suspend(20, 30, "1", "log_full") }},
		"and not while all is well: log_full":                {false, func(h *history) { h.suspend(20, 30, "1", "log_full") }},
		"an old session gives nothing up":                    {true, func(h *history) { h.suspend(11, 12, "1", OK); h.giveUp(20, 30, Replaced) }},
		"and suspends nothing":                               {true, func(h *history) { h.suspend(11, 12, "1", OK); h.suspend(20, 30, "2", Replaced) }},
		"one that goes on is not old":                        {false, func(h *history) { h.suspend(11, 12, "1", OK); h.suspend(20, 30, "1", Replaced) }},
		"nor does an old one go on": {false, func(h *history) {
			h.suspend(11, 12, "1", OK)
			h.ask(20, 30, Ask, OK, "a")
			(*h)[len(*h)-1].Who = "acme/2"
		}},
		"it may not be let in": {true, func(h *history) {
			h.suspend(11, 12, "1", OK)
			h.ask(20, 30, Ask, "unauthorized", "a")
			(*h)[len(*h)-1].Who = "acme/2"
		}},
		"for no other reason":                                   {false, func(h *history) { h.ask(20, 30, Ask, "unauthorized", "a") }},
		"a reader has no keys that the vault alone has":         {false, func(h *history) { h.ask(20, 30, Ask, "key_replaced", "a") }},
		"who suspends once more may be told NoRecovery":         {true, func(h *history) { h.suspend(11, 12, "1", OK); h.suspend(20, 30, "1", NoRecovery) }},
		"not at first: NoRecovery":                              {false, func(h *history) { h.suspend(20, 30, "1", NoRecovery); h.suspend(40, 50, "1", OK) }},
		"who suspends once more may be told succession_pending": {true, func(h *history) { h.suspend(11, 12, "1", OK); h.suspend(20, 30, "1", "succession_pending") }},
		"not at first: succession_pending":                      {false, func(h *history) { h.suspend(20, 30, "1", "succession_pending"); h.suspend(40, 50, "1", OK) }},
		"who suspends is told nothing else":                     {false, func(h *history) { h.suspend(20, 30, "1", "internal") }},
		"without a freeze none is old": {false, func(h *history) {
			h.kill(20, 30)
			h.thaw(20, 30, "unavailable")
			h.set(2060, 2070, "1", ThawOld, 2, "a")
		}},
		"nor before one": {false, func(h *history) {
			h.kill(20, 30)
			h.thaw(20, 30, "unavailable")
			h.set(33, 36, "1", ThawOld, 2, "a")
			h.freeze(2040, 2050)
		}},
		"nor is what is no thaw": {false, func(h *history) {
			h.kill(20, 30)
			h.set(20, 30, "1", "unavailable", 3, "a")
			h.freeze(2040, 2050)
			h.set(2060, 2070, "1", ThawOld, 2, "a")
		}},
		"or came after the freeze": {false, func(h *history) {
			h.freeze(11, 12)
			h.kill(20, 30)
			h.thaw(20, 30, "unavailable")
			h.set(2060, 2070, "1", ThawOld, 2, "a")
		}},
		"or was done": {false, func(h *history) {
			h.freeze(11, 12)
			h.thaw(20, 30, OK)
			h.freeze(2040, 2050)
			h.set(2060, 2070, "1", ThawOld, 2, "a")
		}},
		"or was needless": {false, func(h *history) {
			h.thaw(20, 30, "not_found")
			h.freeze(2040, 2050)
			h.set(2060, 2070, "1", ThawOld, 2, "a")
		}},
		"one that is overtaken on the way is": {true, func(h *history) { h.thaw(20, 60, ThawOld); h.freeze(30, 40) }},
		"a freeze that may not have been ends no thaw": {true, func(h *history) {
			h.freeze(11, 12)
			h.kill(20, 30)
			h.thaw(20, 30, "unavailable")
			h.kill(2040, 2050)
			h.freeze(2040, 2050)
			(*h)[len(*h)-1].Result = "unavailable"
			h.read(2060, 2070, "released", 1, 1)
		}},
		"who hands on an order knows whom it looked up": {false, func(h *history) { h.lookUp(11, 12, OK); h.specified(20, 30, OK, Terms{}); h.unmet(40, 50, Forward) }},
		"and no other":                       {true, func(h *history) { h.specified(20, 30, OK, Terms{}); h.unmet(40, 50, Forward) }},
		"who collects does too":              {false, func(h *history) { h.lookUp(11, 12, OK); h.specified(20, 30, OK, Terms{}); h.unmet(40, 50, Collect) }},
		"and none that it did not":           {true, func(h *history) { h.specified(20, 30, OK, Terms{}); h.unmet(40, 50, Collect) }},
		"without an order nobody is unknown": {false, func(h *history) { h.unmet(40, 50, Forward); (*h)[len(*h)-1].About = "" }},
		"nor is anything collected":          {false, func(h *history) { h.unmet(40, 50, Collect); (*h)[len(*h)-1].About = "" }},
		"of two purposes one is wrong": {true, func(h *history) {
			h.grant(20, 50, "1", OK, Terms{Purpose: "billing"})
			h.read(25, 45, "wrong_purpose", 0, 0)
		}},
		"of one that two grants have no": {false, func(h *history) { h.grant(20, 50, "1", OK, Terms{}); h.read(25, 45, "wrong_purpose", 0, 0) }},
		"a replay that is answered":      {false, func(h *history) { h.add(20, 30, "", Replay, "accepted", func(e *Event) { e.Attack = "read" }) }},
		"a device that does not finish":  {false, func(h *history) { h.add(20, 30, "ana/1", Calm, "storefront_behind", nil) }},

		"what ends for another writer leaves what was written": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 54, "1", OK, 2)
			h.ana(52, 56, EndWrite, "carl", OK, "a")
			h.read(60, 70, "released", 1, 1)
		}},
		"and what is permitted once more": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 54, "1", OK, 2)
			h.letWrite(52, 56, GrantWrite, OK)
			h.read(60, 70, "released", 1, 1)
		}},
		"and what ended before, and was permitted again": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.letWrite(13, 14, EndWrite, OK)
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 54, "1", OK, 2)
			h.read(60, 70, "released", 1, 1)
		}},
		"and an end of nothing": {false, func(h *history) {
			h.other(11, 12, EndWrite, "a", false, "")
			h.last().Result = "no_write_grant"
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 54, "1", OK, 2)
			h.read(60, 70, "released", 1, 1)
		}},
		"and one of another field": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 54, "1", OK, 2)
			h.ana(52, 56, EndWrite, "globex", OK, "b")
			h.read(60, 70, "released", 1, 1)
		}},
		"what was written when its time began may not count": {true, func(h *history) {
			h.letWriteFor(20, 30, Terms{From: 1e9})
			h.write(900, 1100, "1", OK, 2)
			h.read(4500, 4510, "released", 1, 1)
		}},
		"what was written after that does": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{From: 1e9})
			h.write(2500, 2510, "1", OK, 2)
			h.read(4500, 4510, "released", 1, 1)
		}},
		"whatever begins for another": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWriteOf(31, 32, "carl", "a", Terms{From: 1e9})
			h.write(900, 1100, "1", OK, 2)
			h.read(4500, 4510, "released", 1, 1)
		}},
		"or never was": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.ana(31, 32, GrantWrite, "globex", NoField, "a", "c")
			h.last().Terms.From = 1e9
			h.write(900, 1100, "1", OK, 2)
			h.read(4500, 4510, "released", 1, 1)
		}},
		"or comes later": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWriteFor(2500, 2510, Terms{From: 1e9})
			h.read(2600, 2610, "released", 1, 1)
		}},
		"or is of another field": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWriteOf(31, 32, "globex", "c", Terms{From: 1e9})
			h.write(900, 1100, "1", OK, 2)
			h.read(4500, 4510, "released", 1, 1)
		}},
		"another's time takes nothing": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWriteOf(31, 32, "carl", "a", Terms{For: 2e9})
			h.letWriteOf(33, 34, "globex", "c", Terms{})
			h.write(40, 50, "1", OK, 2)
			h.writeOf(4400, 4410, "globex/1", OK, 3, "c")
			h.read(4500, 4510, "released", 1, 1)
		}},
		"nor does one that never was": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.ana(31, 32, GrantWrite, "globex", NoField, "a", "c")
			h.last().Terms.For = 2e9
			h.letWriteOf(33, 34, "globex", "b", Terms{})
			h.write(40, 50, "1", OK, 2)
			h.writeOf(4400, 4410, "globex/1", OK, 3, "b")
			h.read(4500, 4510, "released", 1, 1)
		}},
		"nor a later one": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWriteOf(33, 34, "globex", "c", Terms{})
			h.write(40, 50, "1", OK, 2)
			h.letWriteFor(2500, 2510, Terms{For: 1e9})
			h.writeOf(4400, 4410, "globex/1", OK, 3, "c")
			h.read(4500, 4510, "released", 1, 1)
		}},
		"nor another field's": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWriteOf(31, 32, "globex", "c", Terms{For: 2e9})
			h.letWriteOf(33, 34, "globex", "b", Terms{})
			h.write(40, 50, "1", OK, 2)
			h.writeOf(4400, 4410, "globex/1", OK, 3, "b")
			h.read(4500, 4510, "released", 1, 1)
		}},
		"nor what its writer writes for others": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 2e9})
			h.write(40, 50, "1", OK, 2)
			h.add(52, 54, "bo/1", GrantWrite, OK, func(e *Event) { e.Reader, e.Fields = "globex", []string{"c"} })
			h.writeOf(4400, 4410, "globex/1", OK, 3, "c")
			h.last().Owner = "bo"
			h.read(4500, 4510, "released", 1, 1)
		}},
		"or asks for": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 2e9})
			h.write(40, 50, "1", OK, 2)
			h.ask(4400, 4410, Ask, OK, "a")
			h.last().Who = "globex/1"
			h.read(4500, 4510, "released", 1, 1)
		}},
		"or writes later": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 2e9})
			h.letWriteOf(33, 34, "globex", "c", Terms{})
			h.write(40, 50, "1", OK, 2)
			h.read(4300, 4310, "released", 1, 1)
			h.writeOf(4400, 4410, "globex/1", OK, 3, "c")
		}},
		"or is refused": {false, func(h *history) {
			h.letWriteFor(20, 30, Terms{For: 1e9})
			h.write(40, 50, "1", OK, 2)
			h.write(2500, 2510, "1", "write_ended", 3)
			h.read(2600, 2610, "released", 1, 1)
		}},
		"what was rejected and moved is gone too": {true, func(h *history) { h.adoptedAndMoved(Reject, func() { h.rotate(53, 54, "1", OK) }) }},
		"or moved with a new root":                {true, func(h *history) { h.adoptedAndMoved(Adopt, func() { h.replace(53, 54, "1", OK) }) }},
		"or with a device of it":                  {true, func(h *history) { h.adoptedAndMoved(Adopt, func() { h.restore(53, 54, "2") }) }},
		"or with a sheet": {true, func(h *history) {
			h.sheet(11, 12, "1", KitPrint, OK, false)
			h.adoptedAndMoved(Adopt, func() { h.rescue(53, 54, "2", OK, 11) })
		}},
		"or with a root that was announced": {true, func(h *history) {
			h.announce(11, 12, "1", OK)
			h.adoptedAndMoved(Adopt, func() { h.succeed(4000, 4010, "1", OK) })
		}},
		"or with one that was added after one": {true, func(h *history) {
			h.replace(11, 12, "1", OK)
			h.adoptedAndMoved(Adopt, func() { h.pair(53, 54, "2", OK, "") })
		}},
		"and not with one that was added before": {false, func(h *history) { h.adoptedAndMoved(Adopt, func() { h.pair(53, 54, "2", OK, "") }) }},
		"or where somebody is revoked":           {true, func(h *history) { h.adoptedAndMoved(Adopt, func() { h.ana(53, 54, Revoke, "carl", OK, "a") }) }},
		"or somebody's reading is withdrawn":     {true, func(h *history) { h.adoptedAndMoved(Adopt, func() { h.ana(53, 54, Stop, "carl", OK, "a") }) }},
		"unless the keys are kept": {false, func(h *history) {
			h.adoptedAndMoved(Adopt, func() { h.ana(53, 54, Revoke, "carl", OK, "a"); h.last().Keep = true })
		}},
		"or it is of another field":         {false, func(h *history) { h.adoptedAndMoved(Adopt, func() { h.ana(53, 54, Revoke, "carl", OK, "b") }) }},
		"or another one moves":              {false, func(h *history) { h.adoptedAndMoved(Adopt, func() { h.ana(53, 54, Rotate, "", OK, "b") }) }},
		"or none does":                      {false, func(h *history) { h.adoptedAndMoved(Adopt, func() { h.ana(53, 54, Rotate, "", NoField, "a", "c") }) }},
		"or it moves later":                 {false, func(h *history) { h.adoptedAndMoved(Adopt, func() {}); h.rotate(5080, 5090, "1", OK) }},
		"or it moved before it was written": {false, func(h *history) { h.rotate(11, 12, "1", OK); h.adoptedAndMoved(Adopt, func() {}) }},
		"or nobody decided":                 {false, func(h *history) { h.adoptedAndMoved(GrantWrite, func() { h.rotate(53, 54, "1", OK) }) }},
		"or decided about another's": {false, func(h *history) {
			h.adoptedAndMoved(GrantWrite, func() { h.ana(53, 54, Reject, "carl", OK, "a"); h.rotate(55, 56, "1", OK) })
		}},
		"or about another field": {false, func(h *history) {
			h.adoptedAndMoved(GrantWrite, func() { h.ana(53, 54, Reject, "globex", OK, "b"); h.rotate(55, 56, "1", OK) })
		}},
		"once it moved it did, whatever is moved then": {true, func(h *history) {
			h.adoptedAndMoved(Adopt, func() {
				h.rotate(53, 54, "1", OK)
				h.ana(55, 56, Rotate, "", OK, "b")
				h.ana(57, 58, Revoke, "carl", OK, "b")
				h.pair(59, 60, "2", OK, "")
				h.ana(61, 62, Reject, "carl", OK, "a")
			})
		}},
		"of what nobody wrote no limit is reached": {false, func(h *history) {
			h.grantOfNothing(Terms{Limit: 1})
			h.letWriteC()
			h.kill(20, 30)
			h.add(20, 30, "acme/1", Read, "unavailable", func(e *Event) { e.Items = []Item{{Owner: "ana", Field: "c"}} })
			h.readOf("c", "limit_reached")
		}},
		"of what a writer wrote one is": {true, func(h *history) {
			h.grantOfNothing(Terms{Limit: 1})
			h.letWriteC()
			h.writeOf(20, 22, "globex/1", OK, 2, "c")
			h.add(24, 26, "acme/1", Read, OK, func(e *Event) {
				e.Items = []Item{{Owner: "ana", Field: "c", Author: "globex", Result: "released", Number: 2, Version: 1}}
			})
			h.readOf("c", "limit_reached")
		}},
		"who may write need not": {true, func(h *history) { h.grantOfNothing(Terms{}); h.letWriteC(); h.readOf("c", "not_found") }},
		"what was written is there": {false, func(h *history) {
			h.grantOfNothing(Terms{})
			h.letWriteC()
			h.writeOf(20, 22, "globex/1", OK, 2, "c")
			h.readOf("c", "not_found")
		}},
		"unless it came with the end": {true, func(h *history) {
			h.grantOfNothing(Terms{})
			h.letWriteC()
			h.writeOf(20, 26, "globex/1", OK, 2, "c")
			h.ana(24, 28, EndWrite, "globex", OK, "c")
			h.readOf("c", "not_found")
		}},
		"or its time is over, and something else was written": {true, func(h *history) {
			h.grantOfNothing(Terms{})
			h.letWriteOf(16, 18, "globex", "c", Terms{For: 2e9})
			h.letWriteOf(19, 20, "globex", "b", Terms{})
			h.writeOf(40, 50, "globex/1", OK, 2, "c")
			h.writeOf(4400, 4410, "globex/1", OK, 3, "b")
			h.readLater("c", "not_found")
		}},
		"of two who may write the first did": {false, func(h *history) {
			h.grantOfNothing(Terms{})
			h.letWriteC()
			h.letWriteOf(19, 20, "carl", "c", Terms{})
			h.writeOf(22, 24, "globex/1", OK, 2, "c")
			h.readOf("c", "not_found")
		}},
		"or the second": {false, func(h *history) {
			h.grantOfNothing(Terms{})
			h.letWriteC()
			h.letWriteOf(19, 20, "carl", "c", Terms{})
			h.writeOf(22, 24, "carl/1", OK, 2, "c")
			h.readOf("c", "not_found")
		}},
		"what an owner sets does not bring back what was before a writer's": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.set(45, 90, "1", OK, 3, "a")
			h.read(60, 70, "released", 1, 1)
		}},
		"what was removed is not read": {false, func(h *history) { h.ana(20, 30, Remove, "", OK, "a"); h.read(40, 50, "released", 1, 1) }},
		"what was written of another field was not adopted": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWriteOf(31, 32, "globex", "b", Terms{})
			h.writeOf(33, 34, "globex/1", OK, 2, "b")
			h.write(40, 50, "1", OK, 3)
			h.letWrite(52, 54, Adopt, OK)
			h.read(60, 70, "released", 2, 2)
		}},
		"nor what another wrote": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.letWriteOf(31, 32, "carl", "a", Terms{})
			h.writeOf(33, 34, "carl/1", OK, 2, "a")
			h.write(40, 50, "1", OK, 3)
			h.letWrite(52, 54, Adopt, OK)
			h.read(60, 70, "released", 2, 2)
		}},
		"nor what was written later": {false, func(h *history) {
			h.letWrite(20, 30, GrantWrite, OK)
			h.write(40, 50, "1", OK, 2)
			h.letWrite(52, 54, Adopt, OK)
			h.write(55, 56, "1", OK, 3)
			h.read(60, 70, "released", 3, 2)
		}},
		"a device that is made anew publishes anew": {true, func(h *history) {
			h.read(13, 14, "released", 1, 1)
			h.restore(20, 30, "2")
			h.read(40, 50, "released", 1, 2)
		}},
		"so does a root that was announced": {true, func(h *history) {
			h.announce(11, 12, "1", OK)
			h.read(13, 14, "released", 1, 1)
			h.succeed(4000, 4010, "1", OK)
			h.read(4020, 4030, "released", 1, 2)
		}},
		"and one that was added after another root": {true, func(h *history) {
			h.read(11, 12, "released", 1, 1)
			h.replace(13, 14, "1", OK)
			h.read(15, 16, "released", 1, 2)
			h.pair(20, 30, "2", OK, "")
			h.read(40, 50, "released", 1, 3)
		}},
		"what was set after that is published once": {false, func(h *history) {
			h.kill(20, 38)
			h.replace(20, 30, "1", "unavailable")
			h.set(32, 38, "1", "unavailable", 3, "a")
			h.read(60, 70, "released", 3, 2)
			h.read(80, 90, "released", 3, 3)
		}},
		"who may not write need not be stopped": {true, func(h *history) { h.letWrite(20, 30, EndWrite, "no_write_grant") }},
		"who may is":                            {false, func(h *history) { h.letWrite(11, 12, GrantWrite, OK); h.letWrite(20, 30, EndWrite, "no_write_grant") }},
		"once": {true, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.letWrite(13, 14, EndWrite, OK)
			h.letWrite(20, 30, EndWrite, "no_write_grant")
		}},
		"not when the time is over": {true, func(h *history) {
			h.letWriteFor(11, 12, Terms{For: 1e9})
			h.letWrite(4000, 4010, EndWrite, "no_write_grant")
		}},
		"who ends that is told nothing else": {false, func(h *history) { h.letWrite(20, 30, EndWrite, "internal") }},
		"nor is who sets told of writers":    {false, func(h *history) { h.set(20, 30, "1", "no_write_grant", 2, "a") }},
		"there is nothing to adopt":          {true, func(h *history) { h.letWrite(11, 12, GrantWrite, OK); h.letWrite(20, 30, Adopt, "not_found") }},
		"or to reject":                       {true, func(h *history) { h.letWrite(11, 12, GrantWrite, OK); h.letWrite(20, 30, Reject, "not_found") }},
		"but where somebody wrote there is": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(13, 14, "1", OK, 2)
			h.letWrite(20, 30, Adopt, "not_found")
		}},
		"who adopts is told nothing else": {false, func(h *history) { h.letWrite(11, 12, GrantWrite, OK); h.letWrite(20, 30, Adopt, "internal") }},
		"something newer may have been written": {true, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(13, 14, "1", OK, 2)
			h.letWrite(20, 30, Adopt, Newer)
		}},
		"if anything was": {false, func(h *history) { h.letWrite(11, 12, GrantWrite, OK); h.letWrite(20, 30, Adopt, Newer) }},
		"by then": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.letWrite(20, 30, Adopt, Newer)
			h.write(40, 50, "1", OK, 2)
		}},
		"which matters to nobody who rejects": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(13, 14, "1", OK, 2)
			h.letWrite(20, 30, Reject, Newer)
		}},
		"who adopts is shown what was written": {true, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(13, 14, "1", OK, 2)
			h.letWrite(20, 30, Adopt, OK)
			h.last().Items = []Item{{Owner: "ana", Field: "a", Author: "globex", Number: 2, Version: 1}}
		}},
		"and nothing that is older": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(13, 14, "1", OK, 2)
			h.write(15, 16, "1", OK, 3)
			h.letWrite(20, 30, Adopt, OK)
			h.last().Items = []Item{{Owner: "ana", Field: "a", Author: "globex", Number: 2, Version: 1}}
		}},
		"a stranger may not write":       {true, func(h *history) { h.write(40, 50, "1", "no_write_grant", 2) }},
		"nor did a stranger ever":        {false, func(h *history) { h.write(40, 50, "1", "write_ended", 2) }},
		"a writer's old machine is told": {true, func(h *history) { h.add(11, 12, "globex/1", Suspend, OK, nil); h.write(40, 50, "2", "key_replaced", 2) }},
		"a writer is told log_stopped":   {true, func(h *history) { h.kill(40, 50); h.write(40, 50, "1", "log_stopped", 2) }},
		"or log_full":                    {true, func(h *history) { h.kill(40, 50); h.write(40, 50, "1", "log_full", 2) }},
		"not while all is well":          {false, func(h *history) { h.write(40, 50, "1", "log_full", 2) }},
		"nor anything else":              {false, func(h *history) { h.letWrite(11, 12, GrantWrite, OK); h.write(40, 50, "1", "internal", 2) }},
		"two machines of a writer overtake each other": {true, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(40, 48, "2", OK, 2)
			h.write(41, 50, "1", "chain_moved", 3)
		}},
		"as the storefront may say": {true, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(40, 48, "2", OK, 2)
			h.write(41, 50, "1", "storefront_behind", 3)
		}},
		"one alone is not overtaken": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(30, 38, "1", OK, 2)
			h.write(41, 50, "1", "chain_moved", 3)
		}},
		"nor by what comes later": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.write(41, 50, "1", "chain_moved", 3)
			h.write(60, 68, "2", OK, 2)
		}},
		"nor by one that reads": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.ask(40, 48, Ask, OK, "a")
			h.last().Who = "globex/2"
			h.write(41, 50, "1", "chain_moved", 3)
		}},
		"what was sealed to the keys before does not open": {true, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.add(13, 14, "globex/1", Suspend, OK, nil)
			h.write(40, 50, "1", "untrue", 2)
		}},
		"but to those in force it does": {false, func(h *history) { h.letWrite(11, 12, GrantWrite, OK); h.write(40, 50, "1", "untrue", 2) }},
		"and once the owner has seen them": {false, func(h *history) {
			h.letWrite(11, 12, GrantWrite, OK)
			h.add(13, 14, "globex/1", Suspend, OK, nil)
			h.synced(15, 16)
			h.write(40, 50, "1", "untrue", 2)
		}},

		"an answer that was given is not taken back by itself": {false, func(h *history) { h.specified(20, 30, OK, Terms{}); h.readOf("b", "grant_revoked") }},
		"one whose outcome is unknown may be": {true, func(h *history) {
			h.kill(11, 12)
			h.specified(11, 12, "unavailable", Terms{})
			h.readOf("b", "released")
			h.readLater("b", "grant_revoked")
		}},
		"with what its source may write": {true, func(h *history) {
			h.letWriteOf(11, 12, "globex", "b", Terms{})
			h.kill(13, 14)
			h.specified(13, 14, "unavailable", Terms{})
			h.writeOf(20, 30, "globex/1", "no_write_grant", 2, "b")
		}},
		"who looked one up may begin anew later": {false, func(h *history) { h.lookUp(20, 30, OK); h.specify(40, 50); h.add(60, 70, "acme/1", Restart, OK, nil) }},
		"another session may have heard":         {true, func(h *history) { h.lookUp(20, 30, OK); h.add(32, 36, "acme/2", Hear, OK, nil); h.specify(40, 50) }},
		"or handed it on":                        {true, func(h *history) { h.lookUp(20, 30, OK); h.about(32, 36, "2", Forward, NotAsked); h.specify(40, 50) }},
		"or looked it up": {true, func(h *history) {
			h.lookUp(20, 30, OK)
			h.lookUp(32, 36, OK)
			h.last().Who = "acme/2"
			h.specify(40, 50)
		}},
		"or written": {true, func(h *history) {
			h.lookUp(20, 30, OK)
			h.writeOf(32, 36, "acme/2", "no_write_grant", 2, "a")
			h.specify(40, 50)
		}},
		"or collected":              {true, func(h *history) { h.lookUp(20, 30, OK); h.about(32, 36, "2", Collect, NotAsked); h.specify(40, 50) }},
		"or this one was made anew": {true, func(h *history) { h.lookUp(20, 30, OK); h.add(32, 36, "acme/1", Restore, OK, nil); h.specify(40, 50) }},
		"or has other keys":         {true, func(h *history) { h.lookUp(20, 30, OK); h.suspend(32, 36, "1", OK); h.specify(40, 50) }},
		"an old session looks nobody up": {true, func(h *history) {
			h.suspend(11, 12, "1", OK)
			h.lookUp(20, 30, "key_replaced")
			h.last().Who = "acme/2"
		}},
		"who hands on an order has one": {false, func(h *history) { h.about(40, 50, "1", Forward, OK) }},
		"that was given":                {true, func(h *history) { h.specified(20, 30, OK, Terms{}); h.about(40, 50, "1", Forward, OK) }},
		"for this": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.last().About = "2"
			h.about(40, 50, "1", Forward, OK)
		}},
		"and not denied": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.last().Fields = nil
			h.about(40, 50, "1", Forward, OK)
		}},
		"or too late": {false, func(h *history) {
			h.specified(20, 30, "consent_expired", Terms{Waits: 1})
			h.about(40, 50, "1", Forward, OK)
		}},
		"or later": {false, func(h *history) { h.about(11, 12, "1", Forward, OK); h.specified(20, 30, OK, Terms{}) }},
		"by an owner": {false, func(h *history) {
			h.ask(20, 30, Specify, OK, "b")
			h.last().About = "1"
			h.about(40, 50, "1", Forward, OK)
		}},
		"who hands on is not introduced": {false, func(h *history) {
			h.registers(11, 12)
			h.about(40, 50, "1", Forward, "not_introduced")
			h.last().Reader = "globex"
		}},
		"who is for everybody may look others up": {false, func(h *history) {
			h.add(11, 12, "globex/1", LookUp, OK, func(e *Event) { e.Reader = "carl" })
			h.lookUp(20, 30, "not_introduced")
		}},
		"and is until it says otherwise": {false, func(h *history) { h.lookUp(11, 12, "not_introduced"); h.registers(20, 30) }},
		"a stranger is not introduced by another introduction": {true, func(h *history) {
			h.registers(11, 12)
			h.introduce(13, 14)
			h.last().Reader = "carl"
			h.introduce(15, 16)
			h.last().To = "carl"
			h.kill(17, 18)
			h.introduce(17, 18)
			h.last().Result = "unavailable"
			h.lookUp(20, 30, "not_introduced")
			h.introduce(40, 50)
		}},
		"nor if another session heard of it": {true, func(h *history) {
			h.registers(11, 12)
			h.introduce(13, 14)
			h.add(15, 16, "acme/2", Hear, OK, nil)
			h.lookUp(20, 30, "not_introduced")
		}},
		"an order that came is handed on": {false, func(h *history) { h.specified(20, 30, OK, Terms{}); h.about(40, 50, "1", Forward, NotAsked) }},
		"by the session that has it": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.add(32, 36, "acme/2", Hear, OK, nil)
			h.about(40, 50, "1", Forward, NotAsked)
		}},
		"if it did": {true, func(h *history) { h.about(40, 50, "1", Forward, NotAsked) }},
		"and not to another one": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.last().About = "2"
			h.about(40, 50, "1", Forward, NotAsked)
		}},
		"and no denial": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.last().Fields = nil
			h.about(40, 50, "1", Forward, NotAsked)
		}},
		"of which the owner knows": {true, func(h *history) {
			h.kill(20, 30)
			h.specified(20, 30, "unavailable", Terms{})
			h.about(40, 50, "1", Forward, NotAsked)
		}},
		"when it was": {true, func(h *history) { h.about(11, 12, "1", Forward, NotAsked); h.specified(20, 30, OK, Terms{}) }},
		"and no answer to something else": {true, func(h *history) {
			h.answer(20, 30, OK, nil, "b")
			h.about(40, 50, "1", Forward, NotAsked)
			h.last().About = ""
		}},
		"who looks up has no order":           {false, func(h *history) { h.lookUp(20, 30, NotAsked) }},
		"nor does it lack a contact":          {false, func(h *history) { h.lookUp(20, 30, "no_contact") }},
		"nor is it told anything else":        {false, func(h *history) { h.lookUp(20, 30, "internal") }},
		"nobody may answer who looks up":      {true, func(h *history) { h.kill(20, 30); h.lookUp(20, 30, "unavailable") }},
		"and somebody does while all is well": {false, func(h *history) { h.lookUp(20, 30, "unavailable") }},
		"who did not register is for everybody": {true, func(h *history) {
			h.kill(11, 12)
			h.registers(11, 12)
			h.last().Result = "unavailable"
			h.lookUp(20, 30, OK)
		}},
		"or registers later": {true, func(h *history) { h.lookUp(11, 12, OK); h.registers(20, 30) }},
		"or does something else": {true, func(h *history) {
			h.add(11, 12, "globex/1", LookUp, OK, func(e *Event) { e.Reader = "carl" })
			h.lookUp(20, 30, OK)
		}},
		"an introduction that comes later": {false, func(h *history) { h.registers(11, 12); h.lookUp(20, 30, OK); h.introduce(40, 50) }},
		"or of another": {false, func(h *history) {
			h.registers(11, 12)
			h.introduce(13, 14)
			h.last().Reader = "carl"
			h.lookUp(20, 30, OK)
		}},
		"or to another":                     {false, func(h *history) { h.registers(11, 12); h.introduce(13, 14); h.last().To = "carl"; h.lookUp(20, 30, OK) }},
		"who looked it up before may again": {true, func(h *history) { h.lookUp(11, 12, OK); h.registers(13, 14); h.lookUp(20, 30, OK) }},
		"not who looked up another": {false, func(h *history) {
			h.lookUp(11, 12, OK)
			h.last().Reader = "carl"
			h.registers(13, 14)
			h.lookUp(20, 30, OK)
		}},
		"or if another did": {false, func(h *history) {
			h.lookUp(11, 12, OK)
			h.last().Who = "carl/1"
			h.registers(13, 14)
			h.lookUp(20, 30, OK)
		}},
		"or who was refused": {false, func(h *history) { h.registers(11, 12); h.lookUp(13, 14, "not_introduced"); h.lookUp(20, 30, OK) }},
		"a source may look up who hands on an order": {true, func(h *history) {
			h.registers(11, 12)
			h.about(13, 14, "1", Forward, NotAsked)
			h.last().Who, h.last().Source = "globex/1", "acme"
			h.lookUp(20, 30, OK)
		}},
		"and no other source": {false, func(h *history) {
			h.registers(11, 12)
			h.about(13, 14, "1", Forward, NotAsked)
			h.last().Who, h.last().Source = "globex/1", "carl"
			h.lookUp(20, 30, OK)
		}},
		"nor anybody else": {false, func(h *history) {
			h.registers(11, 12)
			h.about(13, 14, "1", Forward, NotAsked)
			h.last().Who, h.last().Source = "carl/1", "acme"
			h.lookUp(20, 30, OK)
		}},
		"what was deposited for another order is new": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.kill(32, 36)
			h.deposit(32, 36, "unavailable", 2, "b")
			h.last().About = "2"
			h.deposit(40, 50, "order_used", 3, "b")
		}},
		"so is what was written": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.writeOf(32, 36, "globex/1", OK, 2, "b")
			h.last().About = "1"
			h.deposit(40, 50, "order_used", 3, "b")
		}},
		"or refused": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(32, 36, "wider_than_asked", 2, "a", "b")
			h.deposit(40, 50, "order_used", 3, "b")
		}},
		"or another field": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.kill(32, 36)
			h.deposit(32, 36, "unavailable", 2, "a")
			h.deposit(40, 50, "order_used", 3, "b")
		}},
		"or comes later as a deposit": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(32, 36, "order_used", 2, "b")
			h.kill(40, 50)
			h.deposit(40, 50, "unavailable", 3, "b")
		}},
		"who has no order deposits nothing": {true, func(h *history) { h.deposit(40, 50, NotAsked, 2, "b"); h.last().About = "" }},
		"who has one does":                  {false, func(h *history) { h.deposit(40, 50, NotAsked, 2, "b") }},
		"without one it is not too wide":    {false, func(h *history) { h.deposit(40, 50, "wider_than_asked", 2, "a"); h.last().About = "" }},
		"nor is anything deposited": {false, func(h *history) {
			h.answer(20, 30, OK, nil, "b")
			h.letWriteOf(31, 32, "globex", "b", Terms{})
			h.deposit(40, 50, OK, 2, "b")
			h.last().About = ""
		}},
		"what may be written need not be ordered": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.letWriteOf(31, 32, "globex", "a", Terms{})
			h.deposit(40, 50, OK, 2, "a")
		}},
		"nor answered": {false, func(h *history) { h.letWriteOf(31, 32, "globex", "b", Terms{}); h.deposit(40, 50, OK, 2, "b") }},
		"of two orders each is deposited": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.specified(31, 32, OK, Terms{})
			h.last().About = "2"
			h.deposit(33, 36, OK, 2, "b")
			h.last().About = "2"
			h.deposit(40, 50, OK, 3, "b")
		}},
		"also after what was written": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.writeOf(32, 36, "globex/1", OK, 2, "b")
			h.last().About = "1"
			h.deposit(40, 50, OK, 3, "b")
		}},
		"and each of two fields": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.last().Fields = []string{"a", "b"}
			for i, field := range []string{"a", "b"} {
				h.deposit(int64(40+i*4), int64(42+i*4), OK, 2+i, field)
				h.last().Asked = []string{"a", "b"}
			}
		}},
		"or what came to nothing": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.kill(32, 36)
			h.deposit(32, 36, "unavailable", 2, "b")
			h.deposit(40, 50, OK, 3, "b")
		}},
		"a source's clock says that it is late": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(40, 50, "write_ended", 2, "b")
			h.last().Over = true
		}},
		"but if it is": {false, func(h *history) { h.specified(20, 30, OK, Terms{}); h.deposit(40, 50, "write_ended", 2, "b") }},
		"for an order that it has": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(40, 50, "write_ended", 2, "b")
			h.last().Over, h.last().About = true, ""
		}},
		"what is not permitted any more": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.ana(31, 32, EndWrite, "globex", OK)
			h.deposit(40, 50, "no_write_grant", 2, "b")
		}},
		"is refused for an order alone": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.ana(31, 32, EndWrite, "globex", OK)
			h.deposit(40, 50, "no_write_grant", 2, "b")
			h.last().About = ""
		}},
		"as what is permitted later": {false, func(h *history) {
			h.letWriteOf(31, 32, "globex", "b", Terms{From: 1e10})
			h.deposit(40, 50, "grant_not_yet_valid", 2, "b")
			h.last().About = ""
		}},
		"an old session collects nothing":        {true, func(h *history) { h.suspend(11, 12, "1", OK); h.about(40, 50, "2", Collect, "key_replaced") }},
		"who asked for nothing collects nothing": {true, func(h *history) { h.about(40, 50, "1", Collect, NotAsked) }},
		"whomever it looked up":                  {true, func(h *history) { h.lookUp(20, 30, OK); h.about(40, 50, "1", Collect, NotAsked) }},
		"who has an order does collect":          {false, func(h *history) { h.specified(20, 30, OK, Terms{}); h.about(40, 50, "1", Collect, NotAsked) }},
		"unless another session has it": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.add(32, 36, "acme/2", Hear, OK, nil)
			h.about(40, 50, "1", Collect, NotAsked)
		}},
		"or nothing of it is granted":        {true, func(h *history) { h.specified(20, 30, OK, Terms{}); h.about(40, 50, "1", Collect, "no_grant") }},
		"or nobody answers":                  {true, func(h *history) { h.kill(40, 50); h.about(40, 50, "1", Collect, "unavailable") }},
		"as somebody does while all is well": {false, func(h *history) { h.about(40, 50, "1", Collect, "unavailable") }},
		"what was deposited is collected": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(32, 36, OK, 2, "b")
			h.collects("released", "globex", 2)
		}},
		"not what was written": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.writeOf(32, 36, "globex/1", OK, 2, "b")
			h.last().About = "1"
			h.collects("released", "globex", 2)
		}},
		"nor deposited for another order": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.specified(31, 32, OK, Terms{})
			h.last().About = "2"
			h.deposit(33, 36, OK, 2, "b")
			h.last().About = "2"
			h.collects("released", "globex", 2)
		}},
		"nor the owner's": {false, func(h *history) {
			h.specified(20, 30, OK, Terms{})
			h.deposit(32, 36, OK, 2, "b")
			h.set(37, 38, "1", OK, 3, "b")
			h.collects("released", "", 3)
			h.last().Items[0].Version = 2
		}},
		"nor what is not granted": {false, func(h *history) {
			h.letWriteOf(11, 12, "globex", "b", Terms{})
			h.kill(13, 14)
			h.deposit(13, 14, "unavailable", 2, "b")
			h.collects("released", "globex", 2)
		}},
		"what was moved meanwhile is not attested": {true, func(h *history) { h.specified(20, 30, OK, Terms{}); h.collects("attestation_mismatch", "", 0) }},
		"what is refused for want of that counts": {true, func(h *history) {
			h.specified(20, 30, OK, Terms{Limit: 3})
			h.collects("not_the_source", "", 0)
			h.readLater("b", "limit_reached")
		}},
		"and nothing else does": {false, func(h *history) { h.specified(20, 30, OK, Terms{Limit: 3}); h.readLater("b", "limit_reached") }},

		"a key server that was away is not there":      {true, func(h *history) { h.halt(20, 30); h.guess(20, 30, "unavailable", "one") }},
		"it is while all is well":                      {false, func(h *history) { h.guess(20, 30, "unavailable", "one") }},
		"and between two times at which it is not":     {false, func(h *history) { h.halt(11, 12); h.guess(20, 30, "unavailable", "one"); h.halt(40, 50) }},
		"a device of the root before sets no password": {false, func(h *history) { h.replace(11, 12, "1", OK); h.password(20, 30, "2", OK, "one") }},
		"which it is told":                             {true, func(h *history) { h.replace(11, 12, "1", OK); h.password(20, 30, "2", Replaced, "one") }},
		"by the key server too":                        {true, func(h *history) { h.replace(11, 12, "1", OK); h.password(20, 30, "2", "key_replaced", "one") }},
		"or it is not let in by that":                  {true, func(h *history) { h.replace(11, 12, "1", OK); h.password(20, 30, "2", "unauthorized", "one") }},
		"as nobody is when it was killed":              {true, func(h *history) { h.halt(20, 30); h.password(20, 30, "2", "unauthorized", "one") }},
		"but everybody while all is well there":        {false, func(h *history) { h.password(20, 30, "2", "unauthorized", "one") }},
		"nor is a killed one a reason to be old":       {false, func(h *history) { h.halt(20, 30); h.password(20, 30, "2", "key_replaced", "one") }},
		"a password of before a new root opens what it opened": {true, func(h *history) {
			h.password(11, 12, "1", OK, "one")
			h.replace(13, 14, "1", OK)
			h.guess(20, 30, OK, "one")
		}},
		"who takes it away may be told of an older state": {true, func(h *history) {
			h.password(11, 12, "1", OK, "one")
			h.pair(13, 14, "2", OK, "")
			h.drop(15, 16, "1", OK)
			h.add(20, 30, "ana/2", SwitchOff, "rollback", nil)
		}},
		"not who insists on nothing": {false, func(h *history) {
			h.password(11, 12, "1", OK, "one")
			h.pair(13, 14, "2", OK, "")
			h.drop(15, 16, "1", OK)
			h.password(20, 30, "2", "rollback", "one")
		}},
		"nor who deleted it": {false, func(h *history) {
			h.password(11, 12, "1", OK, "one")
			h.drop(13, 14, "1", OK)
			h.again(20, 30, "1", Password, "rollback", "two")
		}},
		"nor before that": {false, func(h *history) {
			h.password(11, 12, "1", OK, "one")
			h.again(20, 30, "2", Password, "rollback", "two")
			h.drop(40, 50, "1", OK)
		}},
		"nor if there was nothing to delete": {false, func(h *history) { h.drop(11, 12, "1", NotAsked); h.again(20, 30, "2", Password, "rollback", "two") }},
		"a device that took over what another did ends no password in silence": {true, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.halfTaken(KitPrint)
			h.sheet(20, 30, "2", KitPrint, EndsWord, false)
		}},
		"nor one that was about to switch it off": {true, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.add(15, 16, "ana/2", SwitchOff, "unavailable", nil)
			h.password(20, 30, "2", EndsSheet, "one")
		}},
		"but one that did take it over": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.again(15, 16, "2", Password, OK, "one")
			h.password(20, 30, "2", EndsSheet, "two")
		}},
		"or will": {false, func(h *history) {
			h.sheet(5, 6, "1", KitPrint, OK, false)
			h.password(11, 12, "2", EndsSheet, "two")
			h.halfTaken(Password)
		}},
		"or did not insist": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.kill(15, 16)
			h.password(15, 16, "2", "unavailable", "one")
			h.password(20, 30, "2", EndsSheet, "two")
		}},
		"who closed the account is told so":        {true, func(h *history) { h.close(11, 12, "1", OK); h.password(20, 30, "1", "account_closed", "one") }},
		"and nobody else who sets a password":      {false, func(h *history) { h.password(20, 30, "1", "account_closed", "one") }},
		"who sets a password is told nothing else": {false, func(h *history) { h.password(20, 30, "1", "internal", "one") }},
		"who has an account begins the count anew": {true, func(h *history) { h.password(11, 12, "1", OK, "one"); h.add(20, 30, "ana/1", Unlock, OK, nil) }},
		"who has none does not": {true, func(h *history) {
			h.password(11, 12, "1", OK, "one")
			h.add(20, 30, "ana/2", Unlock, "no_account", nil)
		}},
		"who has one knows": {false, func(h *history) {
			h.password(11, 12, "1", OK, "one")
			h.add(20, 30, "ana/1", Unlock, "no_account", nil)
		}},
		"and is told nothing else of it":                        {false, func(h *history) { h.add(20, 30, "ana/2", Unlock, "internal", nil) }},
		"where there is no password all are wrong":              {true, func(h *history) { h.guess(20, 30, "password_wrong", "one") }},
		"a key server that was killed forgets who was guessing": {true, func(h *history) { h.halt(20, 30); h.guess(20, 30, "not_found", "one") }},
		"and no other does":                                     {false, func(h *history) { h.guess(20, 30, "not_found", "one") }},
		"who guesses is told nothing else":                      {false, func(h *history) { h.guess(20, 30, "internal", "one") }},
		"a right guess gives all tries back": {true, func(h *history) {
			h.guessed(9)
			h.guess(400, 410, OK, "one")
			h.guess(420, 430, "password_wrong", "two")
			h.guess(440, 450, "password_wrong", "two")
		}},
		"so does a new password": {true, func(h *history) {
			h.guessed(10)
			h.password(400, 410, "1", OK, "three")
			h.guess(420, 430, "password_wrong", "two")
		}},
		"not one that was refused": {false, func(h *history) {
			h.sheet(12, 14, "1", KitPrint, OK, false)
			h.guesses(10)
			h.sheet(400, 410, "1", KitPrint, HasSheet, false)
			h.guess(420, 430, "password_wrong", "two")
		}},
		"and the owner's device": {true, func(h *history) {
			h.guessed(10)
			h.add(400, 410, "ana/1", Unlock, OK, nil)
			h.guess(420, 430, "password_wrong", "two")
		}},
		"not one that comes later": {false, func(h *history) {
			h.guessed(10)
			h.guess(400, 410, "password_wrong", "two")
			h.add(420, 430, "ana/1", Unlock, OK, nil)
		}},
		"an eleventh is not right": {false, func(h *history) { h.guessed(10); h.guess(400, 410, OK, "one") }},
		"one whose answer was lost may have been right": {true, func(h *history) {
			h.guessed(9)
			h.unanswered("unavailable", "one")
			h.guess(420, 430, "password_wrong", "two")
			h.guess(440, 450, "password_wrong", "two")
		}},
		"or one whose login was": {true, func(h *history) {
			h.guessed(9)
			h.unanswered("unauthorized", "one")
			h.guess(420, 430, "password_wrong", "two")
			h.guess(440, 450, "password_wrong", "two")
		}},
		"unless it was wrong": {false, func(h *history) {
			h.guessed(9)
			h.unanswered("unavailable", "two")
			h.guess(420, 430, "password_wrong", "two")
			h.guess(440, 450, "password_wrong", "two")
		}},
		"or was told to be": {false, func(h *history) {
			h.guessed(9)
			h.unanswered("not_found", "one")
			h.guess(420, 430, "password_wrong", "two")
			h.guess(440, 450, "password_wrong", "two")
		}},
		"the count may not have begun anew": {true, func(h *history) {
			h.guessed(10)
			h.halt(400, 410)
			h.add(400, 410, "ana/1", Unlock, "unavailable", nil)
			h.guess(420, 430, "password_locked", "two")
		}},
		"or only then": {true, func(h *history) {
			h.guessed(10)
			h.guess(400, 430, "password_locked", "two")
			h.add(410, 420, "ana/1", Unlock, OK, nil)
		}},
		"a guess that began with another counts": {true, func(h *history) {
			h.guessed(9)
			h.guess(400, 420, "password_wrong", "two")
			h.guess(400, 410, "password_locked", "two")
		}},
		"as one that ended with it": {true, func(h *history) {
			h.guessed(9)
			h.guess(390, 410, "password_wrong", "two")
			h.guess(400, 410, "password_locked", "two")
		}},
		"and a right one until it is over": {true, func(h *history) {
			h.guessed(9)
			h.guess(400, 420, OK, "one")
			h.guess(405, 410, "password_locked", "two")
		}},
		"not one that comes": {false, func(h *history) {
			h.guessed(9)
			h.guess(400, 410, "password_locked", "two")
			h.guess(420, 430, "password_wrong", "two")
		}},
		"nor a right one before": {false, func(h *history) {
			h.password(12, 14, "1", OK, "one")
			h.guess(50, 60, OK, "one")
			h.guesses(9)
			h.guess(400, 410, "password_locked", "two")
		}},
		"nor what is no guess": {false, func(h *history) {
			h.guessed(9)
			h.kill(390, 395)
			h.set(390, 395, "1", "unavailable", 2, "a")
			h.guess(400, 410, "password_locked", "two")
		}},
		"one that did not come need not count": {true, func(h *history) {
			h.guessed(9)
			h.unanswered("unavailable", "two")
			h.guess(420, 430, "password_wrong", "two")
		}},
		"or counts three times": {true, func(h *history) {
			h.guessed(7)
			h.unanswered("unavailable", "two")
			h.guess(420, 430, "password_locked", "two")
		}},
		"and not four": {false, func(h *history) {
			h.guessed(6)
			h.unanswered("unavailable", "two")
			h.guess(420, 430, "password_locked", "two")
		}},
		"ten at once are taken": {true, func(h *history) {
			h.guessed(7)
			for i := range int64(3) {
				h.guess(400+i, 420-i, "password_wrong", "two")
			}
		}},
		"and not eleven": {false, func(h *history) {
			h.guessed(8)
			for i := range int64(3) {
				h.guess(400+i, 420-i, "password_wrong", "two")
			}
		}},
		"unless a right one was among them": {true, func(h *history) {
			h.guessed(9)
			h.guess(400, 420, "password_wrong", "two")
			h.guess(401, 419, OK, "one")
			h.guess(402, 418, "password_wrong", "two")
		}},
	}
}

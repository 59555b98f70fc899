package ledger

import (
	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/guardrails"
)

// Rules are the operator's guardrails in force. The zero value is none.
type Rules struct {
	Document policies.Hash   `json:"document,omitzero"`
	Serial   uint64          `json:"serial,omitzero"`
	Index    uint64          `json:"index,omitzero"`
	Text     string          `json:"text,omitzero"`
	Set      *guardrails.Set `json:"-"`
}

// Rules are the operator's guardrails in force.
func (s *State) Rules() Rules { return s.rules }

// guard puts the operator's rules in force.
func (s *State) guard(r *Record, d *guardrails.Document) error {
	if d.Serial <= s.rules.Serial {
		return ErrOrder
	}
	set, err := guardrails.Parse(d.Rules)
	if err != nil {
		return err
	}
	s.rules = Rules{Document: r.Details.Document, Serial: d.Serial, Index: r.Index, Text: d.Rules, Set: set}
	s.accept(r.Details.Document, r.Index)
	s.touch(documentKey(len(s.accepted) - 1))
	return nil
}

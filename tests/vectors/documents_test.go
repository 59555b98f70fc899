package vectors

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/consent"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/policies/names"
	"github.com/sallyport/sallyport/policies/succession"
)

// decoders decode a payload of each type and check its form.
var decoders = map[string]func(*envelope.Envelope) error{
	"identity":          func(e *envelope.Envelope) error { _, err := policies.Decode[policies.Identity](e); return err },
	"vault":             func(e *envelope.Envelope) error { _, err := policies.Decode[policies.VaultDocument](e); return err },
	"relationship":      func(e *envelope.Envelope) error { _, err := policies.Decode[policies.Relationship](e); return err },
	"manifest":          func(e *envelope.Envelope) error { _, err := policies.Decode[policies.Manifest](e); return err },
	"grant":             func(e *envelope.Envelope) error { _, err := policies.Decode[policies.Grant](e); return err },
	"revocation":        func(e *envelope.Envelope) error { _, err := policies.Decode[policies.Revocation](e); return err },
	"session":           func(e *envelope.Envelope) error { _, err := policies.Decode[policies.Session](e); return err },
	"closure":           func(e *envelope.Envelope) error { _, err := policies.Decode[policies.Closure](e); return err },
	"succession":        func(e *envelope.Envelope) error { _, err := policies.Decode[succession.Document](e); return err },
	"succession-notice": func(e *envelope.Envelope) error { _, err := policies.Decode[succession.Notice](e); return err },
	"suspension":        func(e *envelope.Envelope) error { _, err := policies.Decode[succession.Suspension](e); return err },
	"renunciation":      func(e *envelope.Envelope) error { _, err := policies.Decode[succession.Renunciation](e); return err },
	"voucher":           func(e *envelope.Envelope) error { _, err := policies.Decode[names.Voucher](e); return err },
	"guardrails":        func(e *envelope.Envelope) error { _, err := policies.Decode[guardrails.Document](e); return err },
	"invitation-answer": func(e *envelope.Envelope) error { _, err := policies.Decode[consent.Acceptance](e); return err },
	"domain-statement":  func(e *envelope.Envelope) error { _, err := policies.Decode[names.Statement](e); return err },
	"audit-query":       func(e *envelope.Envelope) error { _, err := policies.Decode[policies.AuditQuery](e); return err },
	"read":              func(e *envelope.Envelope) error { _, err := policies.Decode[policies.ReadRequest](e); return err },
	"evidence":          func(e *envelope.Envelope) error { _, err := policies.Decode[policies.EvidenceRequest](e); return err },
}

func payloadOperation(v *values) (outputs, error) {
	decode := decoders[v.str("type")]
	if decode == nil {
		return nil, errors.New("no such type")
	}
	return nil, decode(&envelope.Envelope{Type: v.str("type"), Payload: []byte(v.str("payload"))})
}

func documentOperation(v *values) (outputs, error) {
	e, err := envelope.Parse([]byte(v.str("envelope")))
	if err != nil {
		return nil, err
	}
	if e.Type != v.str("type") {
		return nil, policies.ErrMalformed
	}
	out := outputs{"payload": string(e.Payload), "hash": e.Hash[:]}
	if _, pinned := v.m["pin_vault"]; pinned {
		_, err := policies.OpenVault(e, v.id("pin_vault"), v.id("pin_ceremony"), v.num("newest"))
		return out, err
	}
	var key envelope.Verifier
	if e.Type == "read" || e.Type == "evidence" {
		key = envelope.SessionPublicKey(v.bytes("public"))
	} else if key, err = envelope.ParsePublicKey(v.bytes("public")); err != nil {
		return nil, err
	}
	if e.Type == "succession" {
		second, err := envelope.ParsePublicKey(v.bytes("second"))
		if err != nil {
			return nil, err
		}
		err = e.VerifyTwo(key, second)
		if err != nil {
			return nil, err
		}
	} else if err := e.Verify(key); err != nil {
		return nil, err
	}
	if e.Type == "identity" {
		if _, id, err := policies.OpenIdentity(e); err != nil || id != policies.IdentityID(e.Hash) {
			return nil, errors.New("the identity does not certify itself")
		}
	}
	return out, decoders[e.Type](e)
}

func successorOperation(v *values) (outputs, error) {
	d, err := policies.Decode[succession.Document](&envelope.Envelope{Type: "succession", Payload: []byte(v.str("payload"))})
	if err != nil {
		return nil, err
	}
	hash := d.Successor()
	return outputs{"successor": hash[:]}, nil
}

func receiptOperation(v *values) (outputs, error) {
	r, err := evidence.ParseReceipt([]byte(v.str("receipt")))
	if err != nil {
		return nil, err
	}
	vault := &policies.VaultDocument{Vault: v.id("vault"), LogKey: policies.LogKey{Name: v.str("log_name"), Algorithm: "Ed25519", PublicKey: v.bytes("log_key")}}
	at, entry, _, err := r.Verify(vault, v.id("document"))
	return outputs{"time": uint64(at.UnixMilli()), "kind": string(entry.Kind), "outcome": string(entry.Outcome)}, err
}

func evidenceOperation(v *values) (outputs, error) {
	a, err := evidence.ParseAnswer([]byte(v.str("answer")))
	if err != nil {
		return nil, err
	}
	checkpoint, err := evidence.OpenCheckpoint(a.Checkpoint, policies.LogKey{Name: v.str("log_name"), Algorithm: "Ed25519", PublicKey: v.bytes("log_key")})
	if err != nil {
		return nil, err
	}
	entries := []any{}
	for i := range a.Evidence {
		_, entry, _, err := a.Evidence[i].Verify(checkpoint)
		if err != nil && !errors.Is(err, evidence.ErrErased) {
			return nil, err
		}
		entries = append(entries, text(outputs{"index": a.Evidence[i].Index, "kind": string(entry.Kind), "outcome": string(entry.Outcome), "erased": fmt.Sprint(err != nil)}))
	}
	absent := []any{}
	for _, i := range a.Absent {
		absent = append(absent, fmt.Sprint(i))
	}
	return outputs{"entries": entries, "absent": absent, "before": a.Before}, nil
}

func publishedOperation(v *values) (outputs, error) {
	vault := &policies.VaultDocument{LogKey: policies.LogKey{Name: v.str("log_name"), Algorithm: "Ed25519", PublicKey: v.bytes("log_key")},
		LogHostKey: policies.LogKey{Name: v.str("host_name"), Algorithm: "ML-DSA-44", PublicKey: v.bytes("host_key")}}
	w := evidence.Witnesses{Need: int(v.num("need"))}
	for _, vkey := range v.m["witnesses"].([]any) {
		c, err := evidence.ParseCosigner(vkey.(string))
		if err != nil {
			return nil, err
		}
		w.Of = append(w.Of, c)
	}
	p, err := evidence.OpenPublished(v.str("checkpoint"), vault, w)
	if err != nil {
		return nil, err
	}
	var witnessed []string
	for _, c := range p.Witnesses {
		witnessed = append(witnessed, fmt.Sprint(c.By.Name, " ", c.At.Unix()))
	}
	return outputs{"size": p.Size, "root": p.Root[:], "host": uint64(p.Host.Unix()), "witnesses": strings.Join(witnessed, " ")}, nil
}

func entryOperation(v *values) (outputs, error) {
	at, e, err := evidence.ParseLogLeaf(v.bytes("leaf"))
	if err != nil {
		return nil, err
	}
	o := evidence.Opening{Salt: policies.Nonce(v.bytes("salt")), Details: []byte(v.str("details"))}
	if o.Commitment() != e.Commitment {
		return nil, policies.ErrProof
	}
	if _, err := o.Read(); err != nil {
		return nil, err
	}
	return outputs{"time": uint64(at.UnixMilli()), "kind": string(e.Kind), "owner": e.Owner[:], "reader": e.Reader[:], "outcome": string(e.Outcome), "commitment": e.Commitment[:]}, nil
}

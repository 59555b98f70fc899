package hardware

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/guardrails"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/policies/redact"
)

// Guard signs, with the ceremony key, all rules by which the vault refuses what owners granted. That key is offline as a rule, and every auditor pinned it, so nobody who breaks into the vault's
// host takes a rule away unseen.
type Guard struct {
	redact.Redacted

	// Dir is the folder of the ceremony; CeremonyKey is the ceremony key's file, and Passphrase opens it.
	Dir, CeremonyKey string
	Passphrase       []byte
	// Text is all rules that are to be in force. [CheckRules] has seen them.
	Text string
}

// CheckRules reads rules and refuses what must not be in force: what is no Cedar, permits, or speaks of what there is not.
func CheckRules(text string) (*guardrails.Set, error) {
	set, err := guardrails.Parse(text)
	if err != nil {
		return nil, err
	}
	return set, set.Vet()
}

// Run signs. The serial number is the time in milliseconds, so that of two sets of rules the later counts.
func (c *Guard) Run(context.Context) (*envelope.Envelope, error) {
	record, key, unlock, err := openFolder(c.Dir, c.CeremonyKey, c.Passphrase)
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer key.Zero()
	now := time.Now()
	return policies.Sign(key, &guardrails.Document{
		Header: policies.NewHeader("guardrails", now), Audience: record.Vault.Vault, Serial: uint64(now.UnixMilli()), Rules: c.Text,
	})
}

// HandIn takes what the ceremony key signed for the vault, guardrails or a voucher, to its owners' door, and verifies the receipt: only then is it in force.
type HandIn struct {
	Dir      string // of the ceremony; its public part is enough
	Owners   string // URL of the owners' door
	Roots    []byte // PEM; nothing: those of the system
	Envelope []byte
}

// Run returns the entry of the key-use log, and when that was.
func (c *HandIn) Run(ctx context.Context) (index uint64, at time.Time, err error) {
	record, err := ReadRecord(c.Dir)
	if err != nil {
		return 0, at, err
	}
	signed, err := envelope.Parse(c.Envelope)
	if err != nil {
		return 0, at, err
	}
	door, err := url.Parse(c.Owners)
	if err != nil || door.Scheme != "https" || door.Host == "" {
		return 0, at, fmt.Errorf("%w: the owners' door is an https URL", policies.ErrMalformed)
	}
	secured := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
	if len(c.Roots) > 0 {
		if secured.RootCAs = x509.NewCertPool(); !secured.RootCAs.AppendCertsFromPEM(c.Roots) {
			return 0, at, fmt.Errorf("%w: no certificate of an authority", policies.ErrMalformed)
		}
	}
	web := &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: secured, DisableKeepAlives: true}}
	body, err := json.Marshal(map[string]jsontext.Value{"envelope": signed.Raw})
	if err != nil {
		return 0, at, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, door.JoinPath("/v1/documents").String(), bytes.NewReader(body))
	if err != nil {
		return 0, at, err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := web.Do(request)
	if err != nil {
		return 0, at, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return 0, at, fmt.Errorf("the vault refused it: %w", problem.Read(answer.StatusCode, answer.Header.Get("Content-Type"), answer.Body))
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return 0, at, err
	}
	receipt, err := evidence.ParseReceipt(text)
	if err == nil {
		at, _, _, err = receipt.Verify(record.Vault, signed.Hash)
	}
	if err != nil {
		return 0, at, fmt.Errorf("what the vault answered is no receipt of it, so it is not in force: %w", err)
	}
	return receipt.Evidence.Index, at, nil
}

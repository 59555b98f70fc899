package client

import (
	"bytes"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// FuzzAnswers: what a storefront answers, as each of its answers: what is taken has one meaning, whoever writes it down again.
func FuzzAnswers(f *testing.F) {
	answers := []func() any{
		func() any { return new(api.LoginChallenge) }, func() any { return new(api.Login) }, func() any { return new(api.Mirror) }, func() any { return new(api.Chain) },
		func() any { return new(api.ReaderGrants) }, func() any { return new(api.ReadResult) }, func() any { return new(api.DeviceOffer) }, func() any { return new(api.DeviceProfile) },
		func() any { return new(api.Messages) }, func() any { return new(api.Renunciations) }, func() any { return new(api.Found) }, func() any { return new(api.Successions) },
		func() any { return new(api.AccessToken) }, func() any { return new(api.RestoreToken) }, func() any { return new(api.WriterGrants) }, func() any { return new(vaultapi.ChainState) },
		func() any { return new(vaultapi.HeadState) }, func() any { return new(vaultapi.History) }, func() any { return new(vaultapi.Consistency) }, func() any { return new(vaultapi.SealedEvidence) },
		func() any { return new(vaultapi.Reply) },
	}
	for kind, make := range answers {
		empty, err := json.Marshal(make())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(kind), empty)
	}
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		make := answers[int(kind)%len(answers)]
		first := make()
		if envelope.Decode(data, first) != nil {
			return
		}
		written, err := json.Marshal(first, json.Deterministic(true))
		if err != nil {
			t.Fatalf("%T: what was taken cannot be written down: %v", first, err)
		}
		second := make()
		if err := envelope.Decode(written, second); err != nil {
			t.Fatalf("%T: %s is not taken again: %v", first, written, err)
		}
		if again, err := json.Marshal(second, json.Deterministic(true)); err != nil || !bytes.Equal(again, written) {
			t.Errorf("%T: %s is %s the second time, %v", first, written, again, err)
		}
	})
}

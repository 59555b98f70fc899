package vectors

import (
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/guardrails"
)

func refusalsOperation(v *values) (outputs, error) {
	set, err := guardrails.Parse(v.str("rules"))
	if err != nil {
		return nil, err
	}
	vouched, _ := v.m["vouched"].(bool)
	refused := set.Refusals(&guardrails.Facts{
		Reader: policies.ReaderID(v.id("reader")), Vouched: vouched, Owner: policies.OwnerID(v.id("owner")), Field: policies.Field(v.str("field")), Author: policies.AuthorID(v.id("author")),
		Grant: &policies.Grant{Purpose: v.str("purpose"), Custody: policies.Custody(v.str("custody")), NotBefore: int64(v.num("not_before")), Expires: int64(v.num("expires"))},
		Token: v.str("token"), Grade: v.str("grade"), Items: int(v.num("items")), UsedToday: v.num("used_today"),
	}, time.UnixMilli(int64(v.num("decided"))))
	if refused == nil {
		refused = []string{}
	}
	return outputs{"refusals": refused}, nil
}

func vetOperation(v *values) (outputs, error) {
	set, err := guardrails.Parse(v.str("rules"))
	if err == nil {
		err = set.Vet()
	}
	if err != nil {
		return nil, err
	}
	return outputs{"names": len(set.Names())}, nil
}

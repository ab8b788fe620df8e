# The queue through which the operator receives AWS's events: docs/events.md. It has the same resources as ../cloudformation.yaml; a test
# compares the event pattern, the policy of the queue and that of the event bus. CloudTrail must have a trail that logs management events.
# Not tested on live AWS.

variable "name" {
  description = "The name of the queue and of its rules. Each release of the operator needs a queue of its own, and so another name."
  type        = string
  default     = "stream-encryption-events"
}

variable "forwarding_accounts" {
  description = "The accounts that forward their events. Include this account if other regions of it forward."
  type        = list(string)
  default     = []
}

locals {
  is_hub = length(var.forwarding_accounts) > 0
  rules = concat(
    [aws_cloudwatch_event_rule.events.arn, aws_cloudwatch_event_rule.heartbeat.arn],
    aws_cloudwatch_event_rule.forwarded[*].arn,
  )
}

resource "aws_sqs_queue" "events" {
  name                    = var.name
  sqs_managed_sse_enabled = true
  # The operator deletes a message once the ledger holds its call. Until then, it may arrive again after this time.
  visibility_timeout_seconds = 60
  message_retention_seconds  = 86400
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead.arn
    maxReceiveCount     = 20
  })
}

# Messages that the operator received 20 times and did not delete.
resource "aws_sqs_queue" "dead" {
  name                      = "${var.name}-dead"
  sqs_managed_sse_enabled   = true
  message_retention_seconds = 1209600
}

# What `stream-encryption-operator iam events queue-policy` prints.
resource "aws_sqs_queue_policy" "events" {
  queue_url = aws_sqs_queue.events.url
  policy    = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "AllowEventBridgeRules",
          "Effect": "Allow",
          "Principal": {"Service": "events.amazonaws.com"},
          "Action": "sqs:SendMessage",
          "Resource": "${aws_sqs_queue.events.arn}",
          "Condition": {"ArnEquals": {"aws:SourceArn": ${jsonencode(local.rules)}}}
        },
        {
          "Sid": "DenyAllButAwsServices",
          "Effect": "Deny",
          "Principal": "*",
          "Action": "sqs:SendMessage",
          "Resource": "${aws_sqs_queue.events.arn}",
          "Condition": {"Bool": {"aws:PrincipalIsAWSService": "false"}}
        }
      ]
    }
  JSON
}

resource "aws_cloudwatch_event_rule" "events" {
  name          = var.name
  description   = "Changes of streams and keys, for the stream encryption operator"
  event_pattern = <<-JSON
    {
      "source": ["aws.firehose", "aws.kinesis", "aws.kms"],
      "detail-type": ["AWS API Call via CloudTrail", "AWS Service Event via CloudTrail"],
      "detail": {
        "eventName": [
          "StartDeliveryStreamEncryption",
          "StopDeliveryStreamEncryption",
          "StartStreamEncryption",
          "StopStreamEncryption",
          "CreateDeliveryStream",
          "DeleteDeliveryStream",
          "CreateStream",
          "DeleteStream",
          "DisableKey",
          "EnableKey",
          "ScheduleKeyDeletion",
          "CancelKeyDeletion",
          "PutKeyPolicy",
          "ImportKeyMaterial",
          "DeleteImportedKeyMaterial",
          "DeleteExpiredKeyMaterial",
          "CreateAlias",
          "UpdateAlias",
          "DeleteAlias"
        ]
      }
    }
  JSON
}

resource "aws_cloudwatch_event_target" "events" {
  rule = aws_cloudwatch_event_rule.events.name
  arn  = aws_sqs_queue.events.arn
}

# Proves that events arrive. Without one for 15 minutes, the operator checks for drift by the short interval again.
resource "aws_cloudwatch_event_rule" "heartbeat" {
  name                = "${var.name}-heartbeat"
  description         = "Proves to the stream encryption operator that events arrive"
  schedule_expression = "rate(5 minutes)"
}

resource "aws_cloudwatch_event_target" "heartbeat" {
  rule = aws_cloudwatch_event_rule.heartbeat.name
  arn  = aws_sqs_queue.events.arn
}

# The event bus to which other accounts and regions forward, with ../cloudformation-spoke.yaml. Their rules select the events.
resource "aws_cloudwatch_event_bus" "hub" {
  count = local.is_hub ? 1 : 0
  name  = var.name
}

# One policy for all accounts. With a resource for each account, Terraform writes the permissions at the same time,
# and EventBridge keeps only some of them.
resource "aws_cloudwatch_event_bus_policy" "hub" {
  count          = local.is_hub ? 1 : 0
  event_bus_name = aws_cloudwatch_event_bus.hub[0].name
  policy         = <<-JSON
    {
      "Version": "2012-10-17",
      "Statement": [
        {
          "Sid": "AllowForwardingAccounts",
          "Effect": "Allow",
          "Principal": {"AWS": ${jsonencode(var.forwarding_accounts)}},
          "Action": "events:PutEvents",
          "Resource": "${aws_cloudwatch_event_bus.hub[0].arn}"
        }
      ]
    }
  JSON
}

resource "aws_cloudwatch_event_rule" "forwarded" {
  count          = local.is_hub ? 1 : 0
  name           = "${var.name}-forwarded"
  description    = "Events of other accounts and regions, for the stream encryption operator"
  event_bus_name = aws_cloudwatch_event_bus.hub[0].name
  # Nobody but AWS can send an event whose source begins with "aws.".
  event_pattern = jsonencode({ source = ["aws.firehose", "aws.kinesis", "aws.kms", "aws.events"] })
}

resource "aws_cloudwatch_event_target" "forwarded" {
  count          = local.is_hub ? 1 : 0
  rule           = aws_cloudwatch_event_rule.forwarded[0].name
  event_bus_name = aws_cloudwatch_event_bus.hub[0].name
  arn            = aws_sqs_queue.events.arn
}

output "queue_url" {
  description = "The chart's value events.queueUrl"
  value       = aws_sqs_queue.events.url
}

output "queue_arn" {
  description = "For `stream-encryption-operator iam events policy --queue`"
  value       = aws_sqs_queue.events.arn
}

output "hub_bus" {
  description = "The parameter HubBus of ../cloudformation-spoke.yaml"
  value       = one(aws_cloudwatch_event_bus.hub[*].arn)
}
